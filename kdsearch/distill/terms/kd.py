"""Hinton's distillation, pixel by pixel."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

from kdsearch.config.terms.kd import KDConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Shapes, Term
from kdsearch.distill.ops.features import match_size
from kdsearch.distill.ops.labels import counted_at, masked_mean
from kdsearch.distill.ops.logits import check_logits, soft_kl
from kdsearch.distill.taps import FLOAT, matched_pixels, resized_bytes
from kdsearch.models.seg_output import SegOutput


class KD(Term):
    """`T^2 * mean over pixels of KL(softmax(z_T / T) || softmax(z_S / T))` on the logits (Hinton et al., 2015).

    Zero when both networks agree. Normalised as in CIRKD: per pixel, so that weight 1 is the published one.

    Peak extra memory: O(B K h w).
    """

    name = "kd"

    Config: TypeAlias = KDConfig
    config: KDConfig

    def __init__(self, config: KDConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        check_logits(student, teacher, info)

    def estimate_bytes(self, batch: int) -> int:
        shapes = ("logits", self.shapes_s, self.shapes_t)
        numbers = batch * matched_pixels(*shapes) * (5 * self.info.num_classes + 2)
        return FLOAT * numbers + resized_bytes(*shapes, batch)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        student_bkhw, teacher_bkhw = match_size(student.logits, teacher.logits)
        valid_bhw = counted_at(target_bhw, student, student_bkhw.shape[-2:], self.config.mask_ignored)
        return masked_mean(soft_kl(student_bkhw, teacher_bkhw, self.config.temperature), valid_bhw)
