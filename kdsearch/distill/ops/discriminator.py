"""Discriminator: a network that separates the student's logits from the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

HALVINGS = 4
LEAST_SIDE = 64
"""Shortest side of a map that leaves a 4x4 window after four halvings."""


class Discriminator(nn.Module):
    """Logits `[B, K, h, w]` to a map of scores `[B, 1, h', w']`, higher for the teacher's.

    BN(K), four 4x4 convolutions of stride 2 with spectral norm and LeakyReLU(0.1), to `width` times 1, 2, 4 and 8
    channels, self-attention after the third and fourth, and a 4x4 convolution to the scores (SKD, Liu et al., CVPR
    2019; width 64). Built for maps of `size` (height, width). Below 64 pixels a side the last layer is a 1x1
    convolution of the mean over the map, and once a side cannot be halved, convolutions are 3x3 of stride 1 (ours).

    Batch normalisation uses the batch's own statistics and keeps no running ones: there is no inference. In eval mode
    a pass changes no state; in training mode spectral norms take a step of power iteration.
    """

    def __init__(self, classes: int, size: tuple[int, int], width: int = 64) -> None:
        super().__init__()
        self.classes, self.size, self.width = classes, size, width
        side, channels = min(size), classes
        layers: list[nn.Module] = [nn.BatchNorm2d(classes, track_running_stats=False)]
        for level in range(HALVINGS):
            wide = width * 2**level
            halves = side >= 2
            kernel, stride = (4, 2) if halves else (3, 1)
            layers += [spectral_norm(nn.Conv2d(channels, wide, kernel, stride, 1)), nn.LeakyReLU(0.1)]
            if level >= 2:
                layers.append(SelfAttention(wide))
            side, channels = side // 2 if halves else side, wide
        if min(size) >= LEAST_SIDE:
            layers.append(nn.Conv2d(channels, 1, 4))
        else:
            layers += [nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 1, 1)]
        self.layers = nn.Sequential(*layers)

    def estimate_bytes(self, batch: int) -> int:
        """Peak memory of a forward and backward pass to the input alone, in fp32."""
        weights = [parameter.numel() for parameter in self.parameters()]
        height, width = self.size
        logits = held = batch * self.classes * height * width
        for level in range(HALVINGS):
            height, width = max(1, height // 2), max(1, width // 2)
            held += 2 * batch * self.width * 2**level * height * width
            if level >= 2:
                held += 3 * batch * (height * width) ** 2
        held += sum(weights) + max(weights)  # normalised copies, and one copy in the layout of its operator
        return 4 * max(held, 4 * logits)  # the peak is in the deepest layers, or at the end of the backward pass

    def forward(self, logits_bkhw: Tensor) -> Tensor:
        score_b1hw: Tensor = self.layers(logits_bkhw)
        return score_b1hw


class SelfAttention(nn.Module):
    """`x + gamma * attention(x)` over all places, gamma 0 at first (SAGAN, Zhang et al., ICML 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, max(1, channels // 8), 1) for _ in range(2))
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, feat_bchw: Tensor) -> Tensor:
        query_bqn, key_bqn, value_bcn = (layer(feat_bchw).flatten(2) for layer in (self.query, self.key, self.value))
        share_bnn = (query_bqn.transpose(1, 2) @ key_bqn).softmax(2)
        mixed_bchw: Tensor = feat_bchw + self.gamma * (value_bcn @ share_bnn.transpose(1, 2)).view_as(feat_bchw)
        return mixed_bchw
