"""AT: attention transfer."""

from __future__ import annotations

from torch import Tensor

from kdsearch.distill.base import FramePair
from kdsearch.distill.ops.features import match_size, unit
from kdsearch.distill.tap_term import TapTerm
from kdsearch.distill.taps import FLOAT, matched_pixels
from kdsearch.models.seg_output import SegOutput


class AT(TapTerm):
    """Mean over images and places of `(q_S - q_T)^2` (Zagoruyko and Komodakis, ICLR 2017).

    q is the mean over channels of the squared features, with L2 norm 1 over an image's places; channels may differ.
    Reads no labels, so ignored pixels count. Zero when both networks agree. The published weight is 1e4.

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
        return (unit(energy_s.flatten(1)) - unit(energy_t.flatten(1))).square().mean()
