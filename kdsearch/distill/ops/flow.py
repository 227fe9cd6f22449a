"""Optical flow between two frames: warping along it, and weights for occluded pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdsearch.data.map_grid import resize_map
from kdsearch.distill.base import FramePair, Shapes
from kdsearch.models.seg_output import SegOutput


def warp(map_bchw: Tensor, flow_b2hw: Tensor) -> Tensor:
    """`map(p + flow(p))` at every pixel `p`: bilinear, the border's value outside.

    The flow is (x, y) in pixels of the map and of its size.
    """
    x_bhw, y_bhw = _destination(flow_b2hw)
    height, width = map_bchw.shape[-2:]
    grid_bhw2 = torch.stack([2 * x_bhw / max(width - 1, 1) - 1, 2 * y_bhw / max(height - 1, 1) - 1], 3)
    return F.grid_sample(map_bchw, grid_bhw2, mode="bilinear", padding_mode="border", align_corners=True)


def in_frame(flow_b2hw: Tensor) -> Tensor:
    """Bool `[B, h, w]`: whether the flow from a pixel ends inside the frame."""
    x_bhw, y_bhw = _destination(flow_b2hw)
    height, width = flow_b2hw.shape[-2:]
    return (x_bhw >= 0) & (x_bhw <= width - 1) & (y_bhw >= 0) & (y_bhw <= height - 1)


def resize_flow(flow_b2hw: Tensor, size: tuple[int, ...]) -> Tensor:
    """The flow on a map of another size, in that map's pixels; bilinear."""
    height, width = flow_b2hw.shape[-2:]
    if (height, width) == tuple(size):
        return flow_b2hw
    scale_2 = flow_b2hw.new_tensor([(size[1] - 1) / max(width - 1, 1), (size[0] - 1) / max(height - 1, 1)])
    return resize_map(flow_b2hw, size) * scale_2[:, None, None]


def occlusion_weight(image_bchw: Tensor, next_image_bchw: Tensor, flow_b2hw: Tensor) -> Tensor:
    """`V = exp(-|sum over channels of (I_t - W(I_{t+k}))|)`, `[B, h, w]`, in (0, 1]: 1 where the frames agree (ETC).

    Images are normalised. Differences of opposite sign in different channels cancel, as in the authors' code.
    """
    return (image_bchw - warp(next_image_bchw, flow_b2hw)).sum(1).abs().neg().exp()


def correspondence(frames: FramePair, map_bchw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Correspondence of a map of the first frame with the later frame, at the map's size.

    Returns the flow `[B, 2, h, w]` in the map's pixels, the weight V `[B, h, w]`, averaged over the input's
    pixels per pixel of the map, and a mask of the pixels that stay in the frame (bool, `[B, h, w]`).
    """
    size = (map_bchw.shape[2], map_bchw.shape[3])
    weight_bhw = occlusion_weight(frames.image_bchw, frames.next_image_bchw, frames.flow_b2hw)
    if weight_bhw.shape[-2:] != size:
        weight_bhw = F.adaptive_avg_pool2d(weight_bhw, size)
    flow_b2hw = resize_flow(frames.flow_b2hw, size)
    return flow_b2hw, weight_bhw, in_frame(flow_b2hw)


def both_shown(frames: FramePair, now: SegOutput, flow_b2hw: Tensor) -> Tensor | None:
    """Cells (bool `[B, h, w]`) that show the image in the first frame, and in the later one where the flow ends.

    None: all of them. The flow is in pixels of the map and of its size.
    """
    size = flow_b2hw.shape[-2:]
    shown_bhw, later_bhw = now.inside_at(size), frames.student.inside_at(size)
    if later_bhw is not None:
        reached_bhw = warp(later_bhw[:, None].to(flow_b2hw.dtype), flow_b2hw)[:, 0] > 0.5
        shown_bhw = reached_bhw if shown_bhw is None else shown_bhw & reached_bhw
    return shown_bhw


def input_size(shapes: Shapes) -> tuple[int, int]:
    """Height and width of a network's input: four times its first stage; without one, twice its logits'."""
    stage, stride = (shapes["c1"], 4) if "c1" in shapes else (shapes["logits"], 2)
    return stride * stage[1], stride * stage[2]


def correspondence_bytes(batch: int, size: tuple[int, int], channels: int) -> int:
    """Peak memory of `correspondence`, from the size and channels of the input; its results are far smaller."""
    return 4 * batch * size[0] * size[1] * (4 + channels)  # destination, grid and the warped image


def _destination(flow_b2hw: Tensor) -> tuple[Tensor, Tensor]:
    """Destination of the flow at each pixel: column and row, `[B, h, w]` each."""
    height, width = flow_b2hw.shape[-2:]
    column_w, row_h = (torch.arange(n, device=flow_b2hw.device, dtype=flow_b2hw.dtype) for n in (width, height))
    return flow_b2hw[:, 0] + column_w, flow_b2hw[:, 1] + row_h[:, None]
