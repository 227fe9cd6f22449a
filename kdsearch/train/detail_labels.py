"""Detail labels: foreground and boundaries, derived from semantic labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdsearch.data.info import IGNORE_INDEX


def detail_labels(target_bhw: Tensor, edge_width: int = 5) -> tuple[Tensor, Tensor]:
    """Binary and boundary labels `[B, H, W]`, int64, of a semantic label map.

    Binary is 1 where the class is not 0. Boundary is 1 where the `edge_width` x `edge_width` window (pixels, odd)
    contains two classes or more. Ignored pixels are ignored in both and are no class of their own: next to a single
    class they form no boundary. `ValueError` when `edge_width` is even. A reconstruction: the authors load these labels
    from files.
    """
    if edge_width < 1 or edge_width % 2 == 0:
        raise ValueError(f"edge_width is {edge_width}; it must be odd and positive, such as 5.")
    valid_bhw = target_bhw != IGNORE_INDEX
    label_bhw = target_bhw.float()
    highest_bhw = _window_max(label_bhw.masked_fill(~valid_bhw, -torch.inf), edge_width)
    lowest_bhw = -_window_max((-label_bhw).masked_fill(~valid_bhw, -torch.inf), edge_width)
    binary_bhw = (target_bhw != 0).long()
    boundary_bhw = (highest_bhw != lowest_bhw).long()
    return binary_bhw.masked_fill(~valid_bhw, IGNORE_INDEX), boundary_bhw.masked_fill(~valid_bhw, IGNORE_INDEX)


def _window_max(values_bhw: Tensor, width: int) -> Tensor:
    return F.max_pool2d(values_bhw[:, None], width, stride=1, padding=width // 2)[:, 0]
