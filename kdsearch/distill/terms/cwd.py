"""CWD: channel-wise distillation, on the logits and on a tap."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

from kdsearch.config.terms.cwd import CWDConfig, CWDFeatureConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Shapes, Term
from kdsearch.distill.ops.features import match_size
from kdsearch.distill.ops.logits import channel_kl, check_logits
from kdsearch.distill.tap_term import AdaptedTapTerm
from kdsearch.distill.taps import FLOAT, matched_pixels, resized_bytes
from kdsearch.models.seg_output import SegOutput


class CWD(Term):
    """`tau^2 * mean over images and classes of KL(q_T || q_S)`, q the softmax over places of logits / tau.

    Shu et al., ICCV 2021. Reads no labels: ignored pixels count. Zero when both networks agree. The published
    weight is 3 (0.3 for SegFormer).

    Peak extra memory: O(B K h w).
    """

    name = "cwd"

    Config: TypeAlias = CWDConfig
    config: CWDConfig

    def __init__(self, config: CWDConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        check_logits(student, teacher, info)

    def estimate_bytes(self, batch: int) -> int:
        shapes = ("logits", self.shapes_s, self.shapes_t)
        return FLOAT * batch * 5 * self.info.num_classes * matched_pixels(*shapes) + resized_bytes(*shapes, batch)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        maps = match_size(student.logits, teacher.logits)
        return channel_kl(*maps, self.config.tau, student.inside_at(maps[0].shape[-2:]))


class CWDFeature(AdaptedTapTerm):
    """CWD between the channels of a tap: `tau^2 * mean over images and channels of KL(q_T || q_S)`.

    Shu et al., ICCV 2021. Where channels differ, a 1x1 convolution without bias brings the student to the teacher's.
    Reads no labels: ignored pixels count. Zero when both networks agree and share channels. The published weight is
    50 (5 for SegFormer); code in use (CIRKD) divides by the student's channels before the convolution instead, where 50
    amounts to `50 * C_T / C_S` here.

    Peak extra memory: O(B C_T h w).
    """

    name = "cwd_feature"
    numbers_per_element = 5

    Config: TypeAlias = CWDFeatureConfig
    config: CWDFeatureConfig

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        maps = self.matched(student, teacher)
        return channel_kl(*maps, self.config.tau, student.inside_at(maps[0].shape[-2:]))
