"""Bases of terms that compare one map of both networks."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from torch import Tensor

from kdsearch.config.terms.tap import TapTermConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import Requirements, Shapes, Term
from kdsearch.distill.ops.features import channel_adapter, match_size
from kdsearch.distill.taps import FLOAT, adapted, matched_pixels, require_tap, resized_bytes
from kdsearch.models.seg_output import SegOutput


class TapTerm(Term):
    """A term that reads the tap `config.tap` of the student and of the teacher, and no other.

    The constructor raises `UserError`, with the taps to choose from, where a network has no such tap.
    """

    Config: TypeAlias = TapTermConfig
    config: TapTermConfig

    def __init__(self, config: TapTermConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        require_tap(self.name, config.tap, student, teacher)

    @property
    def requirements(self) -> Requirements:
        return Requirements(taps=(self.config.tap,))


class AdaptedTapTerm(TapTerm):
    """A `TapTerm` whose student map has the teacher's channels: by a 1x1 convolution without bias where they differ."""

    numbers_per_element: ClassVar[int]
    """Numbers that autograd keeps for each element of the compared map."""

    def __init__(self, config: TapTermConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        self.adapter = channel_adapter(student[config.tap][0], teacher[config.tap][0])

    def matched(self, student: SegOutput, teacher: SegOutput) -> tuple[Tensor, Tensor]:
        """Both maps with equal channels, at the size of the finer one."""
        return match_size(self.adapter(student.taps[self.config.tap]), teacher.taps[self.config.tap])

    def estimate_bytes(self, batch: int) -> int:
        tap = self.config.tap
        shapes = (tap, adapted(tap, self.shapes_s, self.shapes_t), self.shapes_t)
        channels, height, width = shapes[1][tap]
        numbers = self.numbers_per_element * channels * matched_pixels(*shapes)
        if channels != self.shapes_s[tap][0]:
            numbers += channels * height * width
        return FLOAT * batch * numbers + resized_bytes(*shapes, batch)
