"""The output of every student and teacher."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class SegOutput:
    """Output of a segmentation network.

    `logits` are `[B, K, h, w]`, before up-sampling to the label's size.
    `taps` are named feature maps `[B, C, h, w]`: `"c1".."c4"` (encoder, at strides 4, 8, 16, 32 or the network's own),
    `"head"` (before the classifier) and those of single networks, such as CLNet's `"con1".."con3"` (contrast features)
    and its detail heads `"bound1".."bound3"`, `"bin1".."bin3"` (2-class logits).
    """

    logits: Tensor
    taps: dict[str, Tensor] = field(default_factory=dict)

    def split(self, count: int) -> tuple[SegOutput, SegOutput]:
        """The outputs of the first `count` images, and of the rest."""
        return (
            SegOutput(self.logits[:count], {name: tap[:count] for name, tap in self.taps.items()}),
            SegOutput(self.logits[count:], {name: tap[count:] for name, tap in self.taps.items()}),
        )


def upsampled_classes(logits_bkhw: Tensor, size: torch.Size) -> Tensor:
    """Class ids `[B, H, W]` at `size` from low-resolution logits: resize the logits, then take the largest."""
    if logits_bkhw.shape[-2:] != size:
        logits_bkhw = F.interpolate(logits_bkhw.float(), size, mode="bilinear", align_corners=True)
    return logits_bkhw.argmax(1)
