"""Naive forms of the terms that follow the flow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.naive.pixels import labels
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.distill.base import FramePair
from kdsearch.models.seg_output import SegOutput


def warped(feat: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Warped map, and a mask of the pixels whose flow stays in the frame."""
    height, width = feat.shape[-2:]
    y, x = torch.meshgrid(
        *(torch.arange(n, device=feat.device, dtype=feat.dtype) for n in (height, width)), indexing="ij"
    )
    x, y = x + flow[:, 0], y + flow[:, 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
    return F.grid_sample(feat, grid, padding_mode="border", align_corners=True), inside


def visible(frames: FramePair) -> Tensor:
    """V of ETC, at the input's size."""
    other, _ = warped(frames.next_image_bchw, frames.flow_b2hw)
    return torch.exp(-(frames.image_bchw - other).sum(1, keepdim=True).abs())


def at_map_size(frames: FramePair, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Flow and V at a smaller size."""
    flow = F.interpolate(frames.flow_b2hw, size, mode="bilinear", align_corners=True)
    for axis in (0, 1):
        flow[:, axis] *= (size[1 - axis] - 1) / (frames.flow_b2hw.shape[3 - axis] - 1)
    return flow, F.avg_pool2d(visible(frames), frames.flow_b2hw.shape[-1] // size[-1])


def stc_motion(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    assert frames is not None
    now, later = student.logits, frames.student.logits
    if term.config.resolution == "full":
        flow, weight = frames.flow_b2hw, visible(frames)
        size = flow.shape[-2:]
        now, later = (F.interpolate(z, size, mode="bilinear", align_corners=True) for z in (now, later))
    else:
        flow, weight = at_map_size(frames, now.shape[-2:])
    if term.config.space == "prob":
        now, later = now.softmax(1), later.softmax(1)
    other, inside = warped(later, flow)
    error = (weight * now - weight * other) ** 2
    return error.permute(0, 2, 3, 1)[inside].mean() if term.config.mask_out_of_frame else error.mean()


def stc_temporal_kd(
    term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None
) -> Tensor:
    assert frames is not None
    label = labels(target, student.logits.shape[-2:])
    flow, weight = at_map_size(frames, student.logits.shape[-2:])
    p, inside = warped(frames.teacher.logits.softmax(1), flow)
    agree = (p.argmax(1) == teacher.logits.argmax(1)).to(p.dtype)
    error = (p * (p.log() - student.logits.softmax(1).log())).sum(1)
    return (weight[:, 0] * agree * error)[inside & (label != IGNORE_INDEX)].mean()
