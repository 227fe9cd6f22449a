"""Convolution and resizing that all parts of CLNet use."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn_relu(channels_in: int, channels_out: int, stride: int = 1, bias: bool = False) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=bias),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def resize(feat_bchw: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize with aligned corners to `size` (height, width in pixels)."""
    if (feat_bchw.shape[-2], feat_bchw.shape[-1]) == size:
        return feat_bchw
    return F.interpolate(feat_bchw, size=size, mode="bilinear", align_corners=True)
