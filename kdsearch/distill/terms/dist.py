"""DIST: distillation of the relations between and within classes."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from kdsearch.config.terms.dist import DISTConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Shapes, Term
from kdsearch.distill.ops.features import match_size, pixels, unit
from kdsearch.distill.ops.labels import counted_at, masked_mean
from kdsearch.distill.ops.logits import check_logits
from kdsearch.distill.taps import FLOAT, matched_pixels, resized_bytes
from kdsearch.models.seg_output import SegOutput


class DIST(Term):
    """`beta * (1 - mean over pixels of rho) + gamma * (1 - mean over classes of rho)` (Huang et al., NeurIPS 2022).

    rho is Pearson's correlation of both networks' probabilities: of a pixel's, over classes, and of a class's, over all
    pixels of the batch, which makes the second part depend on the batch size. Zero when both networks agree. Where one
    network's values are constant rho is undefined: two constants agree (0), a single constant gives 1/2. With two
    classes the first part is piecewise constant, without a gradient. There is no factor T^2, as in the paper. The
    published weight is 1.

    Peak extra memory: O(B K h w).
    """

    name = "dist"

    Config: TypeAlias = DISTConfig
    config: DISTConfig

    def __init__(self, config: DISTConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        check_logits(student, teacher, info)

    def estimate_bytes(self, batch: int) -> int:
        shapes = ("logits", self.shapes_s, self.shapes_t)
        copies = 9 if self.config.beta and self.config.gamma else 7
        numbers = batch * matched_pixels(*shapes) * (copies * self.info.num_classes + 5)
        return FLOAT * numbers + resized_bytes(*shapes, batch)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        student_bkhw, teacher_bkhw = match_size(student.logits, teacher.logits)
        valid_n = counted_at(target_bhw, student, student_bkhw.shape[-2:], self.config.mask_ignored).flatten()
        prob_s, prob_t = (
            F.softmax(pixels(logits_bkhw) / self.config.temperature, 1) for logits_bkhw in (student_bkhw, teacher_bkhw)
        )
        value = prob_s.new_zeros(())
        if self.config.beta:
            value = value + self.config.beta * masked_mean(_one_less_rho(_rows(prob_s), _rows(prob_t), 1), valid_n)
        if self.config.gamma:
            within_k = _one_less_rho(_columns(prob_s, valid_n), _columns(prob_t, valid_n), 0)
            value = value + self.config.gamma * within_k.mean()
        return value


def _rows(prob_nk: Tensor) -> Tensor:
    return prob_nk - prob_nk.mean(1, keepdim=True)


def _columns(prob_nk: Tensor, valid_n: Tensor) -> Tensor:
    """Probabilities minus the mean of their class over the valid pixels; 0 at the others."""
    valid_n1 = valid_n[:, None]
    mean_k = torch.where(valid_n1, prob_nk, 0.0).sum(0) / valid_n.sum().clamp_min(1)
    return torch.where(valid_n1, prob_nk - mean_k, 0.0)


def _one_less_rho(centred_s: Tensor, centred_t: Tensor, dim: int) -> Tensor:
    """1 - correlation along `dim`, as half the squared distance of unit vectors, which avoids cancellation."""
    return (unit(centred_s, dim) - unit(centred_t, dim)).square().sum(dim) / 2
