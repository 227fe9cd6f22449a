"""CLNet's fusion of RGB and thermal features, level by level (Guo et al., KBS 2024: MHFI)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdsearch.models.networks.blocks import conv_bn_relu

DILATIONS = (3, 5, 7, 9)


class SpatialFilter(nn.Module):
    """One attention map `a` from the strongest channel: RGB times `a`, thermal times `1 - a`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 7, padding=3)

    def forward(self, rgb_bchw: Tensor, thermal_bchw: Tensor) -> tuple[Tensor, Tensor]:
        peak_b1hw = torch.maximum(rgb_bchw.amax(1, keepdim=True), thermal_bchw.amax(1, keepdim=True))
        attention_b1hw = self.conv(peak_b1hw).sigmoid()
        return rgb_bchw * attention_b1hw, thermal_bchw * (1 - attention_b1hw)


class ChannelFilter(nn.Module):
    """Scales the channels of both modalities by a gate on their global maxima."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(2 * channels, 2 * channels // 16, 1, bias=False)
        self.expand = nn.Conv2d(2 * channels // 16, 2 * channels, 1, bias=False)

    def forward(self, rgb_bchw: Tensor, thermal_bchw: Tensor) -> tuple[Tensor, Tensor]:
        both_bchw = torch.cat((rgb_bchw, thermal_bchw), 1)
        peak_bc11 = both_bchw.amax((2, 3), keepdim=True)
        gate_bc11 = self.expand(F.relu(self.squeeze(peak_bc11))).sigmoid()
        rgb_bchw, thermal_bchw = (both_bchw * gate_bc11).chunk(2, 1)
        return rgb_bchw, thermal_bchw


def dilated(width: int, dilation: int) -> nn.Sequential:
    """Depth-wise 3x3 convolution with `dilation`, then 1x1, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, groups=width),
        nn.Conv2d(width, width, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


class Interaction(nn.Module):
    """Mixes the complementary and the common feature at one dilation with the mix of the dilation before it."""

    def __init__(self, width: int, dilation: int, first: bool) -> None:
        super().__init__()
        self.complement = nn.Sequential(dilated(width, dilation), conv_bn_relu(width, width))
        self.common = nn.Sequential(dilated(width, dilation), conv_bn_relu(width, width))
        self.mix = conv_bn_relu((2 if first else 3) * width, width)

    def forward(self, complement_bchw: Tensor, common_bchw: Tensor, before: list[Tensor]) -> Tensor:
        mixed = [self.complement(complement_bchw), self.common(common_bchw), *before[-1:]]
        return self.mix(torch.cat(mixed, 1))  # type: ignore[no-any-return]


class Fusion(nn.Module):
    """Fuses one level: encoder features `[B, C, h, w]` of both modalities to `[B, width, h', w']`.

    Levels 1 to 3 halve the map (odd sizes round up), level 4 keeps it. Levels 2 to 4 also take the fusion before.
    """

    def __init__(self, level: int, channels: int, width: int) -> None:
        super().__init__()
        self.pooled = level < 4
        self.filter = SpatialFilter() if level <= 2 else ChannelFilter(channels)
        self.complement = conv_bn_relu(channels, width)
        self.common = conv_bn_relu(channels, width)
        self.interactions = nn.ModuleList(
            Interaction(width, dilation, first=index == 0) for index, dilation in enumerate(DILATIONS)
        )
        self.merge = conv_bn_relu(len(DILATIONS) * width, width)
        self.before = conv_bn_relu(width, width, stride=2 if self.pooled else 1) if level > 1 else None
        self.out = conv_bn_relu(width if level == 1 else 2 * width, width)

    def forward(self, rgb_bchw: Tensor, thermal_bchw: Tensor, before_bchw: Tensor | None) -> Tensor:
        rgb_bchw, thermal_bchw = self.filter(rgb_bchw, thermal_bchw)
        complement_bchw = self.complement(rgb_bchw + thermal_bchw)
        common_bchw = self.common(rgb_bchw * thermal_bchw)
        mixes: list[Tensor] = []
        for interaction in self.interactions:
            mixes.append(interaction(complement_bchw, common_bchw, mixes))
        fused_bchw = complement_bchw + self.merge(torch.cat(mixes, 1)) + common_bchw
        if self.pooled:
            fused_bchw = F.avg_pool2d(fused_bchw, 2, ceil_mode=True)
        if self.before is not None:
            fused_bchw = torch.cat((self.before(before_bchw), fused_bchw), 1)
        return self.out(fused_bchw)  # type: ignore[no-any-return]
