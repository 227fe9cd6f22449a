"""Example of a plug-in: distillation on standardised logits. `docs/term.md` explains it."""

from __future__ import annotations

from pydantic import Field, PositiveFloat
from torch import Tensor

from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Shapes, Term
from kdsearch.distill.ops.features import match_size
from kdsearch.distill.ops.labels import labels_at, masked_mean
from kdsearch.distill.ops.logits import check_logits, soft_kl
from kdsearch.distill.taps import FLOAT, matched_pixels, resized_bytes
from kdsearch.models.seg_output import SegOutput


class ZScoreKD(Term):
    """`T^2 * mean over pixels of KL(softmax(Z(z_T) / T) || softmax(Z(z_S) / T))`, Z the z-score over classes.

    Logit standardisation (Sun et al., CVPR 2024, arXiv 2403.01427), pixel by pixel: the student follows the teacher's
    order of the classes, and not how large its logits are. Zero where both agree up to scale and shift. The authors'
    weight is 9 with T = 2, for images with one label each.
    """

    name = "zscore_kd"

    class Config(Term.Config):
        temperature: PositiveFloat = Field(2.0, description="softmax temperature T; published 2; usual range 1 to 4")

    config: Config

    def __init__(self, config: Config, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        check_logits(student, teacher, info)

    def estimate_bytes(self, batch: int) -> int:
        shapes = ("logits", self.shapes_s, self.shapes_t)
        numbers = batch * matched_pixels(*shapes) * 8 * self.info.num_classes
        return FLOAT * numbers + resized_bytes(*shapes, batch)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        student_bkhw, teacher_bkhw = match_size(student.logits, teacher.logits)
        _, valid_bhw = labels_at(target_bhw, student_bkhw.shape[-2:])
        kl_bhw = soft_kl(z_score(student_bkhw), z_score(teacher_bkhw), self.config.temperature)
        return masked_mean(kl_bhw, valid_bhw)


def z_score(logits_bkhw: Tensor, eps: float = 1e-6) -> Tensor:
    """Logits with mean 0 and standard deviation 1 over the classes of each pixel; equal logits become 0."""
    centred_bkhw = logits_bkhw - logits_bkhw.mean(1, keepdim=True)
    # eps is inside the root: the standard deviation of equal logits has no gradient.
    return centred_bkhw * (centred_bkhw.square().mean(1, keepdim=True) + eps).rsqrt()


TERMS = [ZScoreKD]
