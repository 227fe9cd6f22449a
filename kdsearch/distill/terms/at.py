"""AT: attention transfer."""

from __future__ import annotations

import torch
from torch import Tensor

from kdsearch.distill.base import FramePair
from kdsearch.distill.ops.features import match_size, unit
from kdsearch.distill.ops.labels import masked_mean
from kdsearch.distill.tap_term import TapTerm
from kdsearch.distill.taps import FLOAT, matched_pixels
from kdsearch.models.seg_output import SegOutput


class AT(TapTerm):
    """Mean over images and places of `(q_S - q_T)^2` (Zagoruyko and Komodakis, ICLR 2017).

    q is the mean over channels of the squared features, with L2 norm 1 over an image's places; channels may differ.
    Reads no labels: ignored pixels count. Zero when both networks agree. The published weight is 1e4.

    Peak extra memory: O(B C_S h w).
    """

    name = "at"

    def estimate_bytes(self, batch: int) -> int:
        shapes = (self.config.tap, self.shapes_s, self.shapes_t)
        channels, height, width = self.shapes_s[self.config.tap]
        return FLOAT * batch * (4 * channels * height * width + 3 * matched_pixels(*shapes))

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        energy_s, energy_t = match_size(
            *(output.taps[self.config.tap].square().mean(1, keepdim=True) for output in (student, teacher))
        )
        inside_bhw = student.inside_at(energy_s.shape[-2:])
        inside_bn = None if inside_bhw is None else inside_bhw.flatten(1)

        def share(energy_b1hw: Tensor) -> Tensor:
            energy_bn = energy_b1hw.flatten(1)
            return unit(energy_bn if inside_bn is None else torch.where(inside_bn, energy_bn, 0.0))

        return masked_mean((share(energy_s) - share(energy_t)).square(), inside_bn)
