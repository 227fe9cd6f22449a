"""The contrastive forms of CLFD, as functions of features and labels.

Student features come first, teacher features have no graph. All shapes are static: absent classes are masked out of
every denominator instead of being gathered away. Letters: K classes, C channels, n pixels of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kdsearch.distill.ops.features import unit
from kdsearch.distill.ops.labels import masked_mean, one_hot


def proto(student_kc: Tensor, teacher_kc: Tensor, present_k: Tensor, tau: float, symmetric: bool) -> Tensor:
    """InfoNCE between class prototypes: each student prototype against the teacher's of all present classes.

    `symmetric` averages it with the same from teacher to student.
    """
    sim_kk = unit(student_kc) @ unit(teacher_kc).T / tau
    loss_k = -_log_softmax(sim_kk, present_k).diagonal()
    if symmetric:
        loss_k = (loss_k - _log_softmax(sim_kk.T, present_k).diagonal()) / 2
    return masked_mean(loss_k, present_k)


def spatial(student_n: Tensor, teacher_n: Tensor, label_n: Tensor, valid_n: Tensor, classes: int, tau: float) -> Tensor:
    """InfoNCE between class-masked spatial maps, in closed form.

    The vector of a class is the channel mean of the features at its pixels and 0 elsewhere, with norm 1. Classes do not
    overlap, so all cross products are 0 and a class costs `log(1 + (|P| - 1) exp(-cos / tau))`.
    """
    member_nk = one_hot(label_n, valid_n, classes).to(student_n.dtype)
    present_k = member_nk.any(0)
    dot_k = (student_n * teacher_n) @ member_nk
    norm_s, norm_t = _inverse_norm(student_n, member_nk), _inverse_norm(teacher_n, member_nk)
    others = (present_k.sum() - 1).clamp_min(0).to(dot_k.dtype)
    # log(1 + others * exp(x)) without overflow; log(0 others) is -inf, which gives 0
    loss_k = torch.logaddexp(torch.zeros_like(dot_k), others.log() - dot_k * norm_s * norm_t / tau)
    return masked_mean(loss_k, present_k)


def relation(student_kc: Tensor, teacher_kc: Tensor, present_k: Tensor, tau: float) -> Tensor:
    """Soft cross-entropy of each class's similarities to the other classes, student's to teacher's.

    Channel-free: each network compares its own prototypes. Its least value is the teacher's entropy, not 0.
    """
    others_kk = present_k[:, None] & present_k & ~torch.eye(len(present_k), dtype=torch.bool, device=present_k.device)
    unit_s, unit_t = unit(student_kc), unit(teacher_kc)
    log_s = _log_softmax(unit_s @ unit_s.T / tau, others_kk)
    prob_t = _log_softmax(unit_t @ unit_t.T / tau, others_kk).exp()
    loss_k = -torch.where(others_kk, prob_t * log_s, 0.0).sum(1)
    return masked_mean(loss_k, present_k)


def pixel_proto(
    student_nc: Tensor, teacher_kc: Tensor, present_k: Tensor, label_n: Tensor, valid_n: Tensor, tau: float
) -> Tensor:
    """Each student pixel against the teacher's prototypes of the present classes; its own class is the positive."""
    log_nk = _log_softmax(unit(student_nc) @ unit(teacher_kc).T / tau, present_k)
    return masked_mean(-log_nk.gather(1, label_n[:, None])[:, 0], valid_n)


def pixel_pixel(
    student_nc: Tensor, teacher_nc: Tensor, label_n: Tensor, valid_n: Tensor, classes: int, tau: float, chunk: int
) -> Tensor:
    """Supervised InfoNCE ('L_out') between all student pixels and all teacher pixels. 0 with fewer than two classes.

    Exact. The positives of a pixel reduce to its product with its class's mean unit vector; the n x n similarities of
    the denominator exist only `chunk` rows at a time.
    """
    unit_s, unit_t = unit(student_nc), unit(teacher_nc)
    member_nk = one_hot(label_n, valid_n, classes).to(unit_t.dtype)
    count_k = member_nk.sum(0)
    mean_kc = member_nk.T @ unit_t / count_k.clamp_min(1)[:, None]
    positive_n = (unit_s * mean_kc[label_n]).sum(1) / tau

    def denominator(rows_mc: Tensor) -> Tensor:
        return _masked(rows_mc @ unit_t.T / tau, valid_n).logsumexp(1)

    total_n = _by_rows(denominator, chunk, unit_s)
    return masked_mean(total_n - positive_n, valid_n) * ((count_k > 0).sum() >= 2)


def pixel_queue(
    student_nc: Tensor, queue_kqc: Tensor, filled_kq: Tensor, label_n: Tensor, valid_n: Tensor, tau: float, chunk: int
) -> Tensor:
    """Each student pixel against a queue of unit vectors of each class. 0 with fewer than two classes in the queue.

    A pixel's loss is the mean, over its class's entries, of InfoNCE with that one positive and the entries of all
    other classes as negatives. Entries outside `filled_kq` and pixels of classes without entries are left out.
    """
    classes, length, _ = queue_kqc.shape
    keys_c = queue_kqc.flatten(0, 1).T

    def row_loss(rows_mc: Tensor, label_m: Tensor) -> Tensor:
        sim_mkq = (rows_mc @ keys_c / tau).view(-1, classes, length)
        own_mk1 = one_hot(label_m, torch.ones_like(label_m, dtype=torch.bool), classes)[..., None]
        negative_m1 = _masked(sim_mkq, filled_kq & ~own_mk1).flatten(1).logsumexp(1, keepdim=True)
        positive_mq = sim_mkq.gather(1, label_m[:, None, None].expand(-1, 1, length))[:, 0]
        loss_mq = torch.logaddexp(negative_m1 - positive_mq, torch.zeros_like(positive_mq))
        known_mq = filled_kq[label_m]
        return torch.where(known_mq, loss_mq, 0.0).sum(1) / known_mq.sum(1).clamp_min(1)

    loss_n = _by_rows(row_loss, chunk, unit(student_nc), label_n)
    return masked_mean(loss_n, valid_n & filled_kq.any(1)[label_n])


def _masked(logits: Tensor, keep: Tensor) -> Tensor:
    """The lowest finite value where not `keep`: its exponential is 0, and a fully masked row stays finite."""
    return logits.masked_fill(~keep, torch.finfo(logits.dtype).min)


def _log_softmax(logits: Tensor, keep: Tensor) -> Tensor:
    return F.log_softmax(_masked(logits, keep), -1)


def _inverse_norm(values_n: Tensor, member_nk: Tensor, eps: float = 1e-8) -> Tensor:
    """1 / L2 norm of each class's values `[K]`; 0, without a gradient, for a class that is absent or all 0."""
    norm_k = (values_n.square() @ member_nk).clamp_min(eps**2).sqrt()
    return torch.where(norm_k > eps, 1 / norm_k, 0.0)


def _by_rows(function: Callable[..., Tensor], chunk: int, rows_nc: Tensor, *others: Tensor) -> Tensor:
    """`function` of `chunk` rows of the inputs at a time, joined to `[n]`: a row's value depends on that row alone.

    The gradient of each part is computed directly after the part, so no part is kept or computed twice.
    """
    with_gradient = torch.is_grad_enabled() and rows_nc.requires_grad
    values_n: Tensor = _ByRows.apply(function, chunk, with_gradient, rows_nc, *others)  # type: ignore[no-untyped-call]
    return values_n


class _ByRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Tensor], chunk: int, with_gradient: bool, rows_nc: Tensor, *others: Tensor
    ) -> Tensor:
        values_n = rows_nc.new_empty(len(rows_nc))
        slope_nc = torch.empty_like(rows_nc) if with_gradient else None
        for start in range(0, len(rows_nc), chunk):
            part = slice(start, start + chunk)
            with torch.set_grad_enabled(with_gradient):
                rows_mc = rows_nc[part].detach().requires_grad_(with_gradient)
                value_m = function(rows_mc, *(other[part] for other in others))
                if slope_nc is not None:
                    (slope_nc[part],) = torch.autograd.grad(value_m.sum(), rows_mc)
            values_n[part] = value_m.detach()
        ctx.others = len(others)
        ctx.save_for_backward(slope_nc)
        return values_n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_n: Tensor) -> tuple[Tensor | None, ...]:
        (slope_nc,) = ctx.saved_tensors
        return None, None, None, None if slope_nc is None else grad_n[:, None] * slope_nc, *[None] * ctx.others
