"""Reconstruction of the teacher's map from a masked student map: adapter, mask and generator of MGD and Af-DCD."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdsearch.config.terms.generator import GeneratorConfig, MaskMode, Projector
from kdsearch.distill.base import Shapes
from kdsearch.distill.ops.features import channel_adapter, match_size
from kdsearch.distill.ops.sampling import RandomState
from kdsearch.distill.taps import FLOAT, matched_pixels


class FeatureMask(nn.Module):
    """Hides pixels `[B, C, h, w]` of a map, the same ones in all channels, by setting them to 0.

    `random` hides each pixel of each image with probability `ratio`; the draws are part of the state. `center` hides
    rows h//3 to 2h//3 and columns w//3 to 2w//3, about a ninth of the area.
    """

    def __init__(self, mode: MaskMode, ratio: float) -> None:
        super().__init__()
        self.mode, self.ratio = mode, ratio
        if mode == "random":
            self.random = RandomState()

    def forward(self, feat_bchw: Tensor) -> Tensor:
        batch, _, height, width = feat_bchw.shape
        if self.mode == "none":
            return feat_bchw
        if self.mode == "random":
            keep_b1hw = self.random.of_images(batch, 1, height, width, device=feat_bchw.device) >= self.ratio
        else:
            keep_b1hw = torch.ones(1, 1, height, width, dtype=torch.bool, device=feat_bchw.device)
            keep_b1hw[..., height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = False
        return feat_bchw * keep_b1hw


class EnhancedGenerator(nn.Module):
    """Af-DCD's larger generator: `x1 = relu(conv x)`, `x2 = relu(conv x1)`, `(conv x1 + conv x2) / 2`, all 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second, self.from_first, self.from_second = (_conv3x3(channels) for _ in range(4))

    def forward(self, feat_bchw: Tensor) -> Tensor:
        first_bchw = self.first(feat_bchw).relu()
        second_bchw = self.second(first_bchw).relu()
        total_bchw: Tensor = self.from_first(first_bchw) + self.from_second(second_bchw)
        return total_bchw / 2


def generator(projector: Projector, channels: int, light_rank: int) -> nn.Module:
    """A network from `channels` to `channels` at the same size; every convolution has a bias.

    `mgd`: conv3x3 - ReLU - conv3x3 (MGD, 2022). `enhanced`: see the class (Af-DCD, 2023). `light` is ours: conv1x1 to
    `light_rank` - ReLU - conv3x3 - ReLU - conv1x1 back.
    """
    if projector == "enhanced":
        return EnhancedGenerator(channels)
    if projector == "light":
        return nn.Sequential(
            nn.Conv2d(channels, light_rank, 1),
            nn.ReLU(inplace=True),
            _conv3x3(light_rank),
            nn.ReLU(inplace=True),
            nn.Conv2d(light_rank, channels, 1),
        )
    return nn.Sequential(_conv3x3(channels), nn.ReLU(inplace=True), _conv3x3(channels))


def _conv3x3(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1)


class MaskedGenerator(nn.Module):
    """The student's map `[B, C_S, h, w]`, adapted, masked and completed to a guess of the teacher's.

    The adapter is a 1x1 convolution with a bias, absent where both networks have the same channels; of maps of two
    sizes the coarser is then up-sampled.
    """

    def __init__(self, config: GeneratorConfig, student: int, teacher: int) -> None:
        super().__init__()
        self.adapter = channel_adapter(student, teacher, bias=True)
        self.mask = FeatureMask(config.mask_mode, config.mask_ratio)
        self.generator = generator(config.projector, teacher, config.light_rank)

    def forward(self, student_bchw: Tensor, teacher_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """The guess, and the teacher's map at its size."""
        adapted_bchw, teacher_bchw = match_size(self.adapter(student_bchw), teacher_bchw)
        guess_bchw: Tensor = self.generator(self.mask(adapted_bchw))
        return guess_bchw, teacher_bchw


def generator_bytes(config: GeneratorConfig, student: Shapes, teacher: Shapes, batch: int) -> tuple[int, int]:
    """Memory of a `MaskedGenerator` and the squared error of its guess: the peak, and the part held between passes.

    The peak is in the backward pass of a convolution: the saved tensors of each layer, the guess, two gradients, and
    the copies in the layout of the convolution, at most 2.5 maps and one of the weights.
    """
    (channels_s, _, _), (channels, _, _) = student[config.tap], teacher[config.tap]
    pixels = batch * matched_pixels(config.tap, student, teacher)
    adapts = channels_s != channels
    copies = int(adapts or config.mask_mode != "none")
    if config.projector == "light":
        middle = 9 * config.light_rank**2
        weights, largest = 2 * channels * config.light_rank + middle, max(channels * config.light_rank, middle)
        held = pixels * ((copies + 1) * channels + 2 * config.light_rank)
        peak = held + pixels * (1.5 * channels + config.light_rank)
    else:
        layers, hidden = (2, 1) if config.projector == "mgd" else (4, 3)
        weights, largest = layers * 9 * channels**2, 9 * channels**2
        held = pixels * (copies + hidden + 1) * channels
        peak = held + pixels * 3.5 * channels
    weights += adapts * channels_s * channels
    return int(FLOAT * (peak + weights + largest)), FLOAT * held
