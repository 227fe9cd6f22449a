"""MGD: masked generative distillation."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

from kdsearch.config.terms.generator import GeneratorConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Shapes
from kdsearch.distill.ops.features import squared_error
from kdsearch.distill.ops.generators import MaskedGenerator, generator_bytes
from kdsearch.distill.tap_term import TapTerm
from kdsearch.models.seg_output import SegOutput


class MGD(TapTerm):
    """Mean squared error between the teacher's map and what a generator makes of the student's masked one.

    Yang et al., "Masked Generative Distillation", ECCV 2022. All pixels count, hidden or not, with a label or not, as
    in the authors' code. It is not 0 when both networks agree. They sum over elements, with weight 2e-5 for
    segmentation: `weight` 168 of this mean at 2048 channels of 64 x 64 pixels (2e-5 C_T h w); range 10 to 1000. Their
    CWD on the logits is a term of its own.

    Peak extra memory: O(B C_T h w + the generator's weights, for their gradient).
    """

    name = "mgd"

    Config: TypeAlias = GeneratorConfig
    config: GeneratorConfig

    def __init__(self, config: GeneratorConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        self.masked_generator = MaskedGenerator(config, student[config.tap][0], teacher[config.tap][0])

    def estimate_bytes(self, batch: int) -> int:
        return generator_bytes(self.config, self.shapes_s, self.shapes_t, batch)[0]

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        tap = self.config.tap
        guess_bchw, teacher_bchw = self.masked_generator(student.taps[tap], teacher.taps[tap])
        return squared_error(guess_bchw, teacher_bchw, student.inside_at(guess_bchw.shape[-2:]))
