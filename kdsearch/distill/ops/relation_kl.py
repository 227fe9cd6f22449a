"""KL divergence between two networks' pixel similarities, without the whole matrix of similarities in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 2**22
"""Limit of entries per block of similarities; about three blocks exist at a time."""


def relation_kl(
    rows_s: Tensor,
    rows_t: Tensor,
    keys_s: Tensor,
    keys_t: Tensor,
    weight_n: Tensor,
    keep_m: Tensor | None,
    tau: float,
    groups: int = 1,
    block: int | None = None,
) -> Tensor:
    """`sum over rows n of weight_n * sum over groups of KL(p_T || p_S)`, a scalar; gradients for the student's tensors.

    `p` is the softmax, over the keys of one group, of `row . key / tau`. Rows are `[n, C]` and keys `[m, C]` of each
    network; the m keys are `groups` equal parts, one after the other. Keys outside `keep_m` are masked.

    Exact. It processes `block` rows at a time (None: `block_rows`). The gradient of a KL divergence at the logits is
    `p_S - p_T`, so the forward pass accumulates gradients: O(block m) memory, and the backward pass computes nothing.
    """
    with_gradient = torch.is_grad_enabled() and (rows_s.requires_grad or keys_s.requires_grad)
    bias_m = torch.zeros_like(keys_s[:, 0])
    if keep_m is not None:
        bias_m = bias_m.masked_fill(~keep_m, torch.finfo(bias_m.dtype).min)
    block = block or block_rows(len(rows_s), len(keys_s))
    value: Tensor = _RelationKL.apply(  # type: ignore[no-untyped-call]
        rows_s, rows_t, keys_s, keys_t, weight_n, bias_m.detach(), tau, groups, block, with_gradient
    )
    return value


def block_rows(rows: int, keys: int) -> int:
    """Rows per block: at most `BLOCK` entries, and at most an eighth of the rows."""
    return max(min(rows // 8, BLOCK // keys), 1)


class _RelationKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows_s: Tensor,
        rows_t: Tensor,
        keys_s: Tensor,
        keys_t: Tensor,
        weight_n: Tensor,
        bias_m: Tensor,
        tau: float,
        groups: int,
        block: int,
        with_gradient: bool,
    ) -> Tensor:
        total = rows_s.new_zeros(())
        grad_rows = torch.empty_like(rows_s) if with_gradient and ctx.needs_input_grad[0] else None
        grad_keys = torch.zeros_like(keys_s) if with_gradient and ctx.needs_input_grad[2] else None

        def log_prob(rows: Tensor, keys: Tensor) -> Tensor:
            logits_rm = torch.addmm(bias_m, rows, keys.T, alpha=1 / tau)
            return logits_rm.view(len(rows), groups, -1).log_softmax(2)

        def sweep(part: slice) -> None:
            log_s, log_t = log_prob(rows_s[part], keys_s), log_prob(rows_t[part], keys_t)
            prob_t = log_t.exp()
            total.add_(weight_n[part] @ log_t.sub_(log_s).mul_(prob_t).sum((1, 2)))
            del log_t
            if not with_gradient:
                return
            grad_rm = log_s.exp_().sub_(prob_t).mul_((weight_n[part] / tau)[:, None, None]).flatten(1)
            if grad_rows is not None:
                torch.mm(grad_rm, keys_s, out=grad_rows[part])
            if grad_keys is not None:
                grad_keys.addmm_(grad_rm.T, rows_s[part])

        for start in range(0, len(rows_s), block):
            sweep(slice(start, start + block))
        ctx.save_for_backward(grad_rows, grad_keys)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_rows, grad_keys = ctx.saved_tensors
        return (
            None if grad_rows is None else grad_rows * grad,
            None,
            None if grad_keys is None else grad_keys * grad,
            *[None] * 7,
        )
