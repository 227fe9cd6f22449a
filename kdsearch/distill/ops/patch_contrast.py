"""Af-DCD's dense contrast inside small patches of a map, as functions of features.

Letters: P independent problems, L vectors in each, d channels of a vector. A vector of a problem is numbered
`position * groups + group`. Student vectors come first; teacher vectors have no graph.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kdsearch.config.terms.afdcd import Layout, Metric
from kdsearch.distill.ops.features import unit
from kdsearch.distill.ops.l1_distance import l1_distances, l1_gradient
from kdsearch.distill.taps import FLOAT

PAIRS = 2**18
"""Limit of the pairs in memory."""


def partition(map_bchw: Tensor, layout: Layout) -> Tensor:
    """The vectors of each problem `[P, L, d]`, P = B (h/patch) (w/patch), d = C/groups. h and w divide by the patch."""
    batch, channels, height, width = map_bchw.shape
    side, groups = layout.patch, layout.groups
    map_bgdyixj = map_bchw.view(batch, groups, channels // groups, height // side, side, width // side, side)
    return map_bgdyixj.permute(0, 3, 5, 4, 6, 1, 2).reshape(-1, layout.vectors, channels // groups)


def patch_contrast(
    student_bchw: Tensor,
    teacher_bchw: Tensor,
    layout: Layout,
    metric: Metric,
    tau: float,
    inside_bhw: Tensor | None = None,
) -> Tensor:
    """InfoNCE of each student vector against the teacher's of its problem, mean over all; its twin is the positive.

    Similarities are `-||u - v||_1 / tau` (metric l1, vectors as they are) or `cos(u, v) / tau`. Rows and columns that
    do not fill a patch are cropped at the bottom and at the right. Places that are not `inside` take no part.

    Exact: only terms below eps^2 of a sum's greatest, which change no digit of it, are left out, so that a sharp
    softmax leaves few pairs to the gradient. It is made together with the value, a few problems at a time: the pairs
    are visited once and never kept, and it holds O(B C h w + PAIRS) numbers, not O(P L^2). It cannot be
    differentiated twice.
    """
    height, width = (size - size % layout.patch for size in student_bchw.shape[-2:])
    left_pld, right_pld = (
        partition(map_bchw[..., :height, :width], layout) for map_bchw in (student_bchw, teacher_bchw)
    )
    if metric == "cos":
        left_pld, right_pld = unit(left_pld), unit(right_pld)
    keep_pl = None
    if inside_bhw is not None:
        places_bchw = inside_bhw[:, None, :height, :width].expand(-1, layout.groups, -1, -1)
        keep_pl = partition(places_bchw, layout)[..., 0]
    value: Tensor = _Contrast.apply(left_pld, right_pld, keep_pl, layout, metric, tau)  # type: ignore[no-untyped-call]
    return value


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        left_pld: Tensor,
        right_pld: Tensor,
        keep_pl: Tensor | None,
        layout: Layout,
        metric: Metric,
        tau: float,
    ) -> Tensor:
        problems, vectors, _ = left_pld.shape
        anchors = problems * vectors if keep_pl is None else keep_pl.sum().clamp_min(1).to(left_pld.dtype)
        many, rows = max(PAIRS // vectors**2, 1), min(max(PAIRS // vectors, 1), vectors)
        total = left_pld.new_zeros(())
        unseen = 2 * math.log(torch.finfo(left_pld.dtype).eps)
        grad_pld = torch.empty_like(left_pld) if ctx.needs_input_grad[0] else None
        for low in range(0, vectors, rows):
            index_i = torch.arange(low, min(low + rows, vectors), device=left_pld.device)
            dropped_ij = dropped(layout, index_i)
            twin_i1 = index_i[:, None]
            for first in range(0, problems, many):
                here = slice(first, first + many)
                left_pid, right_pjd = left_pld[here, low : low + rows], right_pld[here]
                logits_pij = _similarities(left_pid, right_pjd, metric).div_(tau)
                twin_pi1 = twin_i1.expand(len(logits_pij), -1, 1)
                logits_pij -= logits_pij.gather(2, twin_pi1)  # cancels large numbers before the sum
                logits_pij.masked_fill_(dropped_ij, -torch.inf)
                kept_pi1: Tensor | float = 1.0
                if keep_pl is not None:  # an anchor's twin stays, so that no row is empty
                    hidden_pij = ~keep_pl[here, None] & (twin_i1 != torch.arange(vectors, device=twin_i1.device))
                    logits_pij.masked_fill_(hidden_pij, -torch.inf)
                    kept_pi1 = keep_pl[here, low : low + rows, None].to(logits_pij.dtype)
                top_pi1 = logits_pij.amax(2, keepdim=True)
                logits_pij -= top_pi1
                share_pij = logits_pij.masked_fill_(logits_pij < unseen, -torch.inf).exp_()
                sum_pi1 = share_pij.sum(2, keepdim=True)
                total += ((top_pi1 + sum_pi1.log()) * kept_pi1).sum()
                if grad_pld is not None:
                    weight_pij = share_pij.div_(sum_pi1)
                    weight_pij.scatter_add_(2, twin_pi1, weight_pij.new_full((), -1.0).expand_as(twin_pi1))
                    weight_pij *= kept_pi1 / (anchors * tau)
                    grad_pld[here, low : low + rows] = _gradient(weight_pij, left_pid, right_pjd, metric)
        if grad_pld is not None:
            ctx.save_for_backward(grad_pld)
        return total / anchors

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (grad_pld,) = ctx.saved_tensors
        return grad_pld * grad, None, None, None, None, None


def _similarities(left_pid: Tensor, right_pjd: Tensor, metric: Metric) -> Tensor:
    if metric == "cos":
        return left_pid @ right_pjd.transpose(1, 2)
    return l1_distances(left_pid, right_pjd).neg_()


def _gradient(weight_pij: Tensor, left_pid: Tensor, right_pjd: Tensor, metric: Metric) -> Tensor:
    """Gradient of the weighted `_similarities` with respect to the left vectors."""
    return weight_pij @ right_pjd if metric == "cos" else l1_gradient(weight_pij, left_pid, right_pjd).neg_()


def contrast_bytes(pixels: int, channels: int, layout: Layout, metric: Metric, pool: int) -> int:
    """Peak memory of max-pooling both maps by `pool` and of `patch_contrast`, forward and backward pass.

    `pixels` of the whole batch, before pooling. Of the pooled size there are the vectors of both networks and their
    gradient; with pooling the maps, and the places (int64) of their greatest numbers; with cosines the maps before
    normalisation and two gradients. Of the pairs there are eight numbers each, three with cosines.
    """
    pooled = pixels // pool**2
    maps = 3 + 4 * (metric == "cos") + 6 * (pool > 1)
    pairs = min(PAIRS, pooled * layout.groups * layout.vectors) * (3 if metric == "cos" else 8)
    return FLOAT * (maps * pooled * channels + pairs)


def dropped(layout: Layout, rows_i: Tensor) -> Tensor:
    """Bool `[i, L]`: pairs of the vectors `rows_i` with all L that the contrast leaves out."""
    columns_j = torch.arange(layout.vectors, device=rows_i.device)
    same_ij = rows_i[:, None] % layout.groups == columns_j % layout.groups
    return same_ij & (rows_i[:, None] != columns_j) & layout.exclude_same_group
