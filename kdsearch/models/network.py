"""The base of every student and teacher."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from kdsearch.models.seg_output import SegOutput


class Network(nn.Module, ABC):
    """A segmentation network: normalised images `[B, C, H, W]` in, `SegOutput` out.

    `detail_taps` says whether `forward` also computes the detail heads (`bound*`, `bin*`), where the network has them.
    They serve training and teaching alone: switch them off to validate, count and export.
    `size_divisor` divides every height and width that the network accepts, in pixels.
    `dropped` names the modules of the library's network that never run and were left out.
    """

    detail_taps: bool = True
    size_divisor: int = 1
    dropped: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, image_bchw: Tensor) -> SegOutput:
        """Logits before up-sampling, and taps."""

    @abstractmethod
    def encoders(self) -> list[nn.Module]:
        """The modules that encoder weights are loaded into, with equal state-dict keys."""
