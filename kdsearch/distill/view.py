"""The part of a view that lies beyond the image: terms must neither read nor train it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdsearch.models.seg_output import SegOutput


def without_outside(output: SegOutput) -> SegOutput:
    """The output with the nearest value inside the image, without a gradient, wherever a map lies outside of it.

    Whatever a term does with the maps (resizing, pooling, convolutions), what both networks say of the padding has no
    effect, and the border of the image is not mixed with another value.
    """
    if output.inside_bhw is None:
        return output
    indices: dict[torch.Size, tuple[Tensor, Tensor]] = {}

    def extended(map_bchw: Tensor) -> Tensor:
        size = map_bchw.shape[-2:]
        if size not in indices:
            inside_bhw = output.inside_at(size)
            assert inside_bhw is not None
            indices[size] = inside_bhw[:, None], _nearest_inside(inside_bhw)
        inside_b1hw, index_bn = indices[size]
        with torch.no_grad():
            nearest_bcn = map_bchw.flatten(2).gather(2, index_bn[:, None].expand(-1, map_bchw.shape[1], -1))
        return torch.where(inside_b1hw, map_bchw, nearest_bcn.view(map_bchw.shape))

    taps = {name: extended(tap) for name, tap in output.taps.items()}
    return SegOutput(extended(output.logits), taps, output.inside_bhw)


def _nearest_inside(inside_bhw: Tensor) -> Tensor:
    """For each cell the index `[B, h w]` of a near cell inside: in its own row, else in the nearest row that has one.

    The cells inside form a convex region, so that those of a row are a run, and so are the rows that have any.
    """
    _, height, width = inside_bhw.shape
    rows_bh = inside_bhw.any(2)
    row_bh = torch.arange(height, device=inside_bhw.device).expand_as(rows_bh)
    row_bh = row_bh.clamp(*_run(rows_bh))
    first_bh1, last_bh1 = (end.gather(1, row_bh[..., None]) for end in _run(inside_bhw))
    column_bhw = torch.arange(width, device=inside_bhw.device).expand_as(inside_bhw).clamp(first_bh1, last_bh1)
    return (row_bh[..., None] * width + column_bhw).flatten(1)


def _run(inside: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the last true place along the last dimension, which stays with size 1."""
    whole = inside.byte()
    return whole.argmax(-1, keepdim=True), inside.shape[-1] - 1 - whole.flip(-1).argmax(-1, keepdim=True)


def any_inside(inside_bhw: Tensor | None, size: tuple[int, ...]) -> Tensor | None:
    """Cells of a map of `size` whose window of the input shows a part of the image; None: all of them."""
    if inside_bhw is None:
        return None
    return F.adaptive_max_pool2d(inside_bhw[:, None].float(), size)[:, 0] > 0
