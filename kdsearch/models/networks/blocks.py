"""The convolution that all parts of CLNet use."""

from __future__ import annotations

from torch import nn


def conv_bn_relu(channels_in: int, channels_out: int, stride: int = 1, bias: bool = False) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=bias),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )
