"""FitNet: features of the student after a linear map to the teacher's channels."""

from __future__ import annotations

from torch import Tensor

from kdsearch.distill.base import FramePair
from kdsearch.distill.ops.features import squared_error
from kdsearch.distill.tap_term import AdaptedTapTerm
from kdsearch.models.seg_output import SegOutput


class FitNet(AdaptedTapTerm):
    """Mean over all elements of `(A F_S - F_T)^2` (Romero et al., ICLR 2015).

    A is a 1x1 convolution without bias, left out where channels are equal. Reads no labels: ignored pixels count.
    Zero when both networks agree and share channels. The published weight is 10.

    Peak extra memory: O(B C_T h w).
    """

    name = "fitnet"
    numbers_per_element = 2

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        maps = self.matched(student, teacher)
        return squared_error(*maps, student.inside_at(maps[0].shape[-2:]))
