"""The prediction of a network for one image, by the rules of a protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from kdsearch.config.data import DataConfig
from kdsearch.config.protocol import EvalProtocol, KeptRatio
from kdsearch.data.images import resize_image
from kdsearch.data.info import DatasetInfo
from kdsearch.models.seg_output import upsampled_classes
from kdsearch.train.evaluation.sizes import Size, input_size, scaled_size, windows

Logits = Callable[[Tensor], Tensor]
"""A network: normalised images `[B, C, H, W]` to logits `[B, K, h, w]`, both fp32 on one device."""


@dataclass(frozen=True)
class MeasuredNetwork:
    """A network with the classes and normalisation of `info`, and the size (height, width) of its training.

    `size_divisor` is the stride of which the input has to be a multiple (1: any size). `data` is the data set of the
    training, where that is known.
    """

    logits: Logits
    info: DatasetInfo
    trained: Size
    size_divisor: int
    device: torch.device
    data: DataConfig | None = None


class Predictor:
    """Class maps of single images by one protocol.

    Inputs of a size that the network does not take are padded at the right and at the bottom with the mean colour, and
    the logits cut.
    """

    def __init__(self, network: MeasuredNetwork, protocol: EvalProtocol) -> None:
        self.network, self.protocol = network, protocol
        info, device = network.info, network.device
        self._mean_c11 = torch.tensor(info.mean, device=device).view(-1, 1, 1)
        self._std_c11 = torch.tensor(info.std, device=device).view(-1, 1, 1)

    def input_size(self, native: Size) -> Size:
        """The size to which an image of `native` size is resized."""
        return input_size(self.protocol, native, self.network.trained)

    @torch.no_grad()
    def classes(self, image_hwc: NDArray[np.uint8], size: Size) -> Tensor:
        """Class ids `[H, W]` at `size`, of a uint8 image `[H, W, C]`. Of equal scores the lowest class is taken."""
        protocol = self.protocol
        resized = self.input_size(image_hwc.shape[:2])
        # With the aspect ratio kept, scores are resized twice: to the size of the input, then to that of the label.
        target = resized if isinstance(protocol.resize, KeptRatio) else size
        one = protocol.slide is None and protocol.scales == (1.0,) and not protocol.flip
        if one and target == size and protocol.align_corners:
            low_1khw, padded = self._padded(self._normalised(image_hwc, resized))
            if padded == resized:
                return upsampled_classes(low_1khw, torch.Size(size))[0]  # without all scores at once
        scores_1khw: Tensor | None = None
        for each in self._scores(image_hwc, resized, target):
            scores_1khw = each if scores_1khw is None else scores_1khw + each
        assert scores_1khw is not None
        return self._up(scores_1khw, size)[0].argmax(0)

    def _scores(self, image_hwc: NDArray[np.uint8], resized: Size, target: Size) -> Iterator[Tensor]:
        """Logits or probabilities `[1, K, *target]` of each scale, and of the mirrored image."""
        protocol, native = self.protocol, (image_hwc.shape[0], image_hwc.shape[1])
        image_1chw = self._normalised(image_hwc, resized)
        for scale in protocol.scales:
            scaled = scaled_size(protocol, native, resized, scale)
            if scaled == resized:
                input_1chw = image_1chw
            elif isinstance(protocol.resize, KeptRatio):
                input_1chw = self._normalised(image_hwc, scaled)
            else:
                input_1chw = F.interpolate(image_1chw, scaled, mode="bilinear", align_corners=True)
            for mirrored in (False, True)[: 1 + protocol.flip]:
                logits_1khw = self._whole_or_slide(input_1chw.flip(3) if mirrored else input_1chw, target)
                logits_1khw = logits_1khw.flip(3) if mirrored else logits_1khw
                yield logits_1khw.softmax(1) if protocol.average == "probabilities" else logits_1khw

    def _whole_or_slide(self, image_1chw: Tensor, target: Size) -> Tensor:
        """Logits `[1, K, *target]`: those of windows are up-sampled to the window, added and divided by their count."""
        if self.protocol.slide is None:
            low_1khw, padded = self._padded(image_1chw)
            height, width = image_1chw.shape[-2:]
            if padded == (height, width):
                return self._up(low_1khw, target)
            return self._up(self._up(low_1khw, padded)[..., :height, :width], target)
        size = (image_1chw.shape[-2], image_1chw.shape[-1])
        total_1khw: Tensor | None = None
        count_hw = torch.zeros(size, device=image_1chw.device)
        for top, left, bottom, right in windows(size, self.protocol.slide):
            low_1khw, padded = self._padded(image_1chw[..., top:bottom, left:right])
            part_1khw = self._up(low_1khw, padded)[..., : bottom - top, : right - left]
            if total_1khw is None:
                total_1khw = part_1khw.new_zeros(1, part_1khw.shape[1], *size)
            total_1khw[..., top:bottom, left:right] += part_1khw
            count_hw[top:bottom, left:right] += 1
        assert total_1khw is not None
        return self._up(total_1khw / count_hw, target)

    def _padded(self, image_1chw: Tensor) -> tuple[Tensor, Size]:
        """Low-resolution logits of an input that is padded to a size which the network takes, and that size."""
        height, width = image_1chw.shape[-2:]
        down, right = -height % self.network.size_divisor, -width % self.network.size_divisor
        if down or right:
            image_1chw = F.pad(image_1chw, (0, right, 0, down))
        return self.network.logits(image_1chw).float(), (height + down, width + right)

    def _up(self, scores_1khw: Tensor, size: Size) -> Tensor:
        if scores_1khw.shape[-2:] == torch.Size(size):
            return scores_1khw
        return F.interpolate(scores_1khw, size, mode="bilinear", align_corners=self.protocol.align_corners)

    def _normalised(self, image_hwc: NDArray[np.uint8], size: Size) -> Tensor:
        """The image `[1, C, *size]`. mmseg resizes by two taps without antialiasing, as OpenCV does."""
        two_taps = isinstance(self.protocol.resize, KeptRatio)
        image_hwc = image_hwc if two_taps else resize_image(image_hwc, size)
        image_1chw = torch.tensor(image_hwc, device=self.network.device).permute(2, 0, 1)[None].float()
        if image_1chw.shape[-2:] != torch.Size(size):
            image_1chw = F.interpolate(image_1chw, size, mode="bilinear", align_corners=False).round()
        return (image_1chw / 255 - self._mean_c11) / self._std_c11
