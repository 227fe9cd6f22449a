"""Hinton's distillation, pixel by pixel."""

from __future__ import annotations

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Shapes, Term
from kdsearch.distill.ops.features import match_size
from kdsearch.distill.ops.labels import labels_at, masked_mean
from kdsearch.distill.taps import FLOAT, matched_pixels, resized_bytes
from kdsearch.errors import UserError
from kdsearch.models.output import SegOutput


class KD(Term):
    """`T^2 * mean over pixels of KL(softmax(z_T / T) || softmax(z_S / T))` on the logits (Hinton et al., 2015).

    Zero when both networks agree. Normalised as in CIRKD: per pixel, so that weight 1 is the published one.

    Peak extra memory: O(B K h w).
    """

    name = "kd"

    class Config(Term.Config):
        temperature: PositiveFloat = Field(
            1.0, description="softmax temperature T; published 1 (CIRKD, Af-DCD); usual range 1 to 8"
        )
        mask_ignored: bool = Field(
            True, description="leave ignored pixels out; false: mean over all pixels, as the CIRKD code does"
        )

    config: Config

    def __init__(self, config: Config, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        check_logits(student, teacher, info)

    def estimate_bytes(self, batch: int) -> int:
        shapes = ("logits", self.shapes_s, self.shapes_t)
        numbers = batch * matched_pixels(*shapes) * (5 * self.info.num_classes + 2)
        return FLOAT * numbers + resized_bytes(*shapes, batch)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        student_bkhw, teacher_bkhw = match_size(student.logits, teacher.logits)
        _, valid_bhw = labels_at(target_bhw, student_bkhw.shape[-2:])
        if not self.config.mask_ignored:
            valid_bhw = torch.ones_like(valid_bhw)
        return masked_mean(soft_kl(student_bkhw, teacher_bkhw, self.config.temperature), valid_bhw)


def soft_kl(student_bkhw: Tensor, teacher_bkhw: Tensor, temperature: float) -> Tensor:
    """`T^2 KL(teacher || student)` of each pixel, `[B, h, w]`, from logits."""
    log_s = F.log_softmax(student_bkhw / temperature, 1)
    log_t = F.log_softmax(teacher_bkhw / temperature, 1)
    return F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(1) * temperature**2


def check_logits(student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
    """Raise `UserError` unless both networks have one logit a class of the data set."""
    for who, shapes in (("student", student), ("teacher", teacher)):
        if shapes["logits"][0] != info.num_classes:
            raise UserError(
                f"The {who} has {shapes['logits'][0]} classes and {info.name} has {info.num_classes}; "
                f"build or train the {who} for {info.name}."
            )
