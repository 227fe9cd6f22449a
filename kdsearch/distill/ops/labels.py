"""Labels at the size of a feature map, and means over labelled pixels. Static shapes: no gathers by mask."""

from __future__ import annotations

import torch
from torch import Tensor

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.map_grid import nearest_cells
from kdsearch.models.seg_output import SegOutput


def labels_at(target_bhw: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Labels at `size` (nearest neighbour: no class is invented), and a mask of the valid ones.

    Returns `label_bhw` (int64, 0 where ignored, a valid index) and `valid_bhw` (bool).
    """
    target_bhw = nearest_cells(target_bhw, size)
    valid_bhw = target_bhw != IGNORE_INDEX
    return torch.where(valid_bhw, target_bhw, 0), valid_bhw


def counted_at(target_bhw: Tensor, output: SegOutput, size: tuple[int, ...], mask_ignored: bool) -> Tensor:
    """The cells (bool `[B, h, w]`) of a map of `size` that count: with a label, or else all that show the image."""
    if mask_ignored:
        return labels_at(target_bhw, size)[1]
    inside_bhw = output.inside_at(size)
    if inside_bhw is None:
        return torch.ones(len(target_bhw), *size, dtype=torch.bool, device=target_bhw.device)
    return inside_bhw


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `values` where `mask` (None: everywhere); an exact 0 with a graph where it is empty."""
    if mask is None:
        return values.mean()
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)


def one_hot(label: Tensor, valid: Tensor, num_classes: int) -> Tensor:
    """Bool `[..., K]`: the class of each label; all false where not `valid`."""
    classes_k = torch.arange(num_classes, device=label.device)
    return (label[..., None] == classes_k) & valid[..., None]


def class_sums(feat_bchw: Tensor, label_bhw: Tensor, valid_bhw: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Per image and class: sum of the features `[B, K, C]` and number of pixels `[B, K]`."""
    member_bnk = one_hot(label_bhw, valid_bhw, num_classes).flatten(1, 2).to(feat_bchw.dtype)
    return torch.einsum("bcn,bnk->bkc", feat_bchw.flatten(2), member_bnk), member_bnk.sum(1)


def prototypes(feat_bchw: Tensor, label_bhw: Tensor, valid_bhw: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mean feature of each class over the whole batch `[K, C]` (0 if absent), and a mask of present classes `[K]`."""
    sums_bkc, count_bk = class_sums(feat_bchw, label_bhw, valid_bhw, num_classes)
    count_k = count_bk.sum(0)
    return sums_bkc.sum(0) / count_k.clamp_min(1)[:, None], count_k > 0
