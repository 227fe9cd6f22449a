"""Helpers of the naive forms: labels and pixels, gathered by mask."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kdsearch.data.info import IGNORE_INDEX


def labels(target: Tensor, size: torch.Size) -> Tensor:
    """Labels at the size of a map, nearest; the first and the last cell lie on the first and the last pixel."""
    rows, columns = (
        [math.floor(cell * (pixels - 1) / max(cells - 1, 1) + 0.5) for cell in range(cells)]
        for pixels, cells in zip(target.shape[1:], size, strict=True)
    )
    return target[:, rows][:, :, columns]


def rows_of(map_bchw: Tensor) -> Tensor:
    return map_bchw.permute(0, 2, 3, 1).reshape(-1, map_bchw.shape[1])


def valid_rows(map_bchw: Tensor, label: Tensor) -> Tensor:
    """The pixels with a label, gathered."""
    return map_bchw.permute(0, 2, 3, 1)[label != IGNORE_INDEX]


def centres(feat: Tensor, label: Tensor) -> dict[int, Tensor]:
    present = [c for c in label.unique().tolist() if c != IGNORE_INDEX]
    return {c: feat.permute(0, 2, 3, 1)[label == c].mean(0) for c in present}


def row_kl(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    p, log_q = F.softmax(teacher / tau, 1), F.log_softmax(student / tau, 1)
    return F.kl_div(log_q, p, reduction="none").sum(1)
