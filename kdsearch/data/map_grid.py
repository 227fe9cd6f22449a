"""Where the cells of a map lie in its image: the one convention of labels, logits, taps and cached maps.

The first and the last cell of a map lie on the first and the last pixel of its image, the others at equal distances
between them (`align_corners=True`): the convention in which logits are up-sampled for the task, in validation and by
every student that has been exported. A map of one cell lies on the centre.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, ...]


def cell_positions(cells: int, pixels: int, device: torch.device | str = "cpu") -> Tensor:
    """Positions `[cells]` (float64) of a map's cells along one side, in pixels: pixel centres are whole numbers."""
    if cells == 1:
        return torch.full((1,), (pixels - 1) / 2, dtype=torch.float64, device=device)
    return torch.arange(cells, dtype=torch.float64, device=device) * ((pixels - 1) / (cells - 1))


def resize_map(map_bchw: Tensor, size: Size) -> Tensor:
    """The map `[B, C, h, w]` with cells for `size` (height, width), bilinear."""
    if tuple(map_bchw.shape[-2:]) == tuple(size):
        return map_bchw
    return F.interpolate(map_bchw, tuple(size), mode="bilinear", align_corners=True)


def nearest_cells(map_bhw: Tensor, size: Size) -> Tensor:
    """The values `[B, h, w]` of the pixels nearest to the cells of a map of `size`."""
    for axis, cells in ((1, size[0]), (2, size[1])):
        pixels = map_bhw.shape[axis]
        if cells != pixels:
            nearest = (cell_positions(cells, pixels, map_bhw.device) + 0.5).floor().long()
            map_bhw = map_bhw.index_select(axis, nearest)
    return map_bhw
