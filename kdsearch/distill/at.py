"""AT: attention transfer."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Needs, Shapes, Term
from kdsearch.distill.features import match_size, unit
from kdsearch.distill.taps import FLOAT, matched_pixels, require_tap
from kdsearch.models.output import SegOutput


class AT(Term):
    """Mean over images and places of `(q_S - q_T)^2` (Zagoruyko and Komodakis, ICLR 2017).

    q is the mean over channels of the squared features, with L2 norm 1 over an image's places; channels may differ.
    Reads no labels, so ignored pixels count. Zero when both networks agree. The published weight is 1e4.

    Peak extra memory: O(B C_S h w).
    """

    name = "at"

    class Config(Term.Config):
        tap: str = Field("head", description="map to compare; published head (CIRKD), the classifier's input")

    config: Config

    def __init__(self, config: Config, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        require_tap(self.name, config.tap, student, teacher)

    @property
    def needs(self) -> Needs:
        return Needs(taps=(self.config.tap,))

    def estimate_bytes(self, batch: int) -> int:
        shapes = (self.config.tap, self.shapes_s, self.shapes_t)
        channels, height, width = self.shapes_s[self.config.tap]
        return FLOAT * batch * (4 * channels * height * width + 3 * matched_pixels(*shapes))

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        energy_s, energy_t = match_size(
            *(output.taps[self.config.tap].square().mean(1, keepdim=True) for output in (student, teacher))
        )
        return (unit(energy_s.flatten(1)) - unit(energy_t.flatten(1))).square().mean()
