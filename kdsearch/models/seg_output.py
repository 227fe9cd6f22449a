"""The output of every student and teacher."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdsearch.data.map_grid import Size, nearest_cells, resize_map


@dataclass
class SegOutput:
    """Output of a segmentation network.

    `logits` are `[B, K, h, w]`, before up-sampling to the label's size.
    `taps` are named feature maps `[B, C, h, w]`: `"c1".."c4"` (encoder, at strides 4, 8, 16, 32 or the network's own),
    `"head"` (before the classifier) and those of single networks, such as CLNet's `"con1".."con3"` (contrast features)
    and its detail heads `"bound1".."bound3"`, `"bin1".."bin3"` (2-class logits).
    `inside_bhw` (bool, at the input's size) are the pixels of the input that show the image. The others lie beyond its
    border. None where all of them show it, and while a network runs.
    """

    logits: Tensor
    taps: dict[str, Tensor] = field(default_factory=dict)
    inside_bhw: Tensor | None = None

    def split(self, count: int) -> tuple[SegOutput, SegOutput]:
        """The outputs of the first `count` images, and of the rest."""
        first, rest = (
            SegOutput(
                self.logits[part],
                {name: tap[part] for name, tap in self.taps.items()},
                None if self.inside_bhw is None else self.inside_bhw[part],
            )
            for part in (slice(count), slice(count, None))
        )
        return first, rest

    def inside_at(self, size: Size) -> Tensor | None:
        """The cells of a map of `size` that lie inside the image (bool `[B, h, w]`); None: all of them."""
        return None if self.inside_bhw is None else nearest_cells(self.inside_bhw, size)


STRIP = 2**23
"""Resized logits, as a number of values, that `upsampled_classes` holds at a time: 32 MiB."""


def upsampled_classes(logits_bkhw: Tensor, size: torch.Size) -> Tensor:
    """Class ids `[B, H, W]` at `size` from low-resolution logits: resize the logits, then take the largest.

    Classes are resized a few at a time: all of 150 classes at 3 megapixels would take 2 GiB.
    """
    if logits_bkhw.shape[-2:] == size:
        return logits_bkhw.argmax(1)
    classes = max(1, STRIP // (len(logits_bkhw) * size.numel()))
    largest_bhw: Tensor | None = None
    for start in range(0, logits_bkhw.shape[1], classes):
        strip_bkhw = logits_bkhw[:, start : start + classes].float()
        values_bhw, found_bhw = resize_map(strip_bkhw, size).max(1)
        if largest_bhw is None:
            largest_bhw, classes_bhw = values_bhw, found_bhw
        else:
            larger_bhw = values_bhw > largest_bhw  # of equal ones the first counts, as in argmax
            classes_bhw = torch.where(larger_bhw, found_bhw + start, classes_bhw)
            largest_bhw = torch.maximum(values_bhw, largest_bhw)
    return classes_bhw
