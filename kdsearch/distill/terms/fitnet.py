"""FitNet: features of the student after a linear map to the teacher's channels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kdsearch.config.terms.tap import TapTermConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Shapes
from kdsearch.distill.ops.features import channel_adapter, match_size
from kdsearch.distill.tap_term import TapTerm
from kdsearch.distill.taps import FLOAT, adapted, matched_pixels, resized_bytes
from kdsearch.models.seg_output import SegOutput


class FitNet(TapTerm):
    """Mean over all elements of `(A F_S - F_T)^2` (Romero et al., ICLR 2015).

    A is a 1x1 convolution without bias, left out where channels are equal. Reads no labels, so ignored pixels count.
    Zero when both networks agree and share channels. The published weight is 10.

    Peak extra memory: O(B C_T h w).
    """

    name = "fitnet"

    def __init__(self, config: TapTermConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        self.adapter = channel_adapter(student[config.tap][0], teacher[config.tap][0])

    def estimate_bytes(self, batch: int) -> int:
        tap = self.config.tap
        shapes = (tap, adapted(tap, self.shapes_s, self.shapes_t), self.shapes_t)
        channels, height, width = shapes[1][tap]
        numbers = 2 * channels * matched_pixels(*shapes)
        if channels != self.shapes_s[tap][0]:
            numbers += channels * height * width
        return FLOAT * batch * numbers + resized_bytes(*shapes, batch)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        adapted_bchw = self.adapter(student.taps[self.config.tap])
        return F.mse_loss(*match_size(adapted_bchw, teacher.taps[self.config.tap]))
