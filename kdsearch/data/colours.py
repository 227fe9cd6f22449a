"""Normalisation and colour jitter of one byte image at a time, in place: the CPU's alternative to batches.

Equal to `views.photometric` followed by a normalisation, without temporaries of the size of a batch. Each image is
computed alone, so its values do not depend on the batch.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdsearch.data.views import GREY


def finish(
    part_chw: Tensor, image_hwc: NDArray[np.uint8], factors: NDArray[np.float64] | None, mean: Tensor, std: Tensor
) -> None:
    """Jitter and normalise a part of a byte image, given as float32 in [0, 255], in place.

    `factors` are those of `views.jitter_factors` for this image, None for no jitter. `mean` and `std` `[C, 1, 1]` are
    of images in [0, 1].
    """
    if factors is None:
        part_chw.sub_(255 * mean).div_(255 * std)
        return
    brightness, contrast, saturation, thermal = factors.tolist()
    rgb = part_chw[:3].mul_(brightness / 255).clamp_(max=1)
    rgb.mul_(contrast).add_((1 - contrast) * grey_mean(image_hwc, brightness)).clamp_(0, 1)
    grey = (rgb[0] * GREY[0]).add_(rgb[1], alpha=GREY[1]).add_(rgb[2], alpha=GREY[2])
    rgb.mul_(saturation).add_(grey, alpha=1 - saturation).clamp_(0, 1)
    part_chw[3:].mul_(thermal / 255).clamp_(max=1)
    part_chw.sub_(mean).div_(std)


def grey_mean(image_hwc: NDArray[np.uint8], brightness: float) -> float:
    """Mean grey of the whole image in [0, 1], brightened and clamped to 1. Sums are of integers, so it is exact."""
    if brightness <= 1:
        sums = _channel_sums(image_hwc).astype(np.float64)
    else:
        limit = 255 / brightness  # a byte over it is clamped to it; between two bytes the sum is linear in it
        low, high = (_channel_sums(_at_most(image_hwc, int(limit) + step)) for step in (0, 1))
        sums = low + (limit - int(limit)) * (high - low)
    return float(sums[:3] @ np.array(GREY)) * brightness / 255 / image_hwc[..., 0].size


def _at_most(image_hwc: NDArray[np.uint8], limit: int) -> NDArray[np.uint8]:
    return torch.from_numpy(image_hwc).clamp(max=limit).numpy()  # NumPy's minimum takes ten times as long


def _channel_sums(image_hwc: NDArray[np.uint8]) -> NDArray[np.int64]:
    height, _, channels = image_hwc.shape
    lines = image_hwc.reshape(height, -1)
    # 256 bytes sum up to less than 2^16, and 16-bit sums of whole lines are many times faster than wider ones.
    sums = sum(lines[row : row + 256].sum(0, dtype=np.uint16).astype(np.int64) for row in range(0, height, 256))
    total: NDArray[np.int64] = np.asarray(sums).reshape(-1, channels).sum(0)
    return total
