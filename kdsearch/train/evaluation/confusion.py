"""Segmentation metrics from one confusion matrix over the whole split."""

from __future__ import annotations

from typing import Literal

import torch
import torch.distributed
from torch import Tensor

from kdsearch.data.info import IGNORE_INDEX


class ConfusionMatrix:
    """Pixel counts `[K, K]` (rows: truth, columns: prediction), accumulated over batches and ranks."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.num_classes = num_classes
        self.counts_kk = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def update(self, prediction_bhw: Tensor, target_bhw: Tensor) -> None:
        """Count a batch; pixels whose target is `IGNORE_INDEX` are left out."""
        valid = target_bhw != IGNORE_INDEX
        index = target_bhw[valid] * self.num_classes + prediction_bhw[valid]
        self.counts_kk += torch.bincount(index, minlength=self.num_classes**2).view_as(self.counts_kk)

    def reduce(self) -> None:
        """Sum over all ranks."""
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            torch.distributed.all_reduce(self.counts_kk)

    def iou_k(self) -> Tensor:
        """Intersection over union of each class `[K]`; NaN for a class that is neither in the truth nor predicted."""
        hits = self.counts_kk.diag().double()
        union = self.counts_kk.sum(0).double() + self.counts_kk.sum(1).double() - hits
        return torch.where(union > 0, hits / union, torch.nan)

    def miou(self, absent: Literal["skip", "zero"] = "skip") -> float:
        """Mean over the classes that occur in the truth or the prediction; others are skipped, or have IoU 0."""
        iou_k = self.iou_k()
        return float(iou_k.nan_to_num(0.0).mean() if absent == "zero" else iou_k.nanmean())

    def miou_of_truth(self) -> float:
        """Mean over the classes that occur in the truth; NaN without a counted pixel."""
        return float(self.iou_k()[self.counts_kk.sum(1) > 0].mean())

    def pixel_accuracy(self) -> float:
        return float(self.counts_kk.diag().sum() / self.counts_kk.sum().clamp_min(1))


def follow_flow(classes_bhw: Tensor, flow_b2hw: Tensor) -> Tensor:
    """Classes of a later frame at the places to which the first frame's pixels move, nearest neighbour.

    `flow_b2hw` is in pixels (x, y), from the first frame to the later one. Pixels that leave the frame get
    `IGNORE_INDEX`.
    """
    _, height, width = classes_bhw.shape
    y_h1 = torch.arange(height, device=flow_b2hw.device)[:, None]
    x_w = torch.arange(width, device=flow_b2hw.device)
    x_bhw = (x_w + flow_b2hw[:, 0]).round().long()
    y_bhw = (y_h1 + flow_b2hw[:, 1]).round().long()
    inside = (x_bhw >= 0) & (x_bhw < width) & (y_bhw >= 0) & (y_bhw < height)
    index = y_bhw.clamp(0, height - 1) * width + x_bhw.clamp(0, width - 1)
    moved = classes_bhw.flatten(1).gather(1, index.flatten(1)).view_as(index)
    return moved.masked_fill(~inside, IGNORE_INDEX)
