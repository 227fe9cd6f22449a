"""DSRD: detail and semantic response distillation of CLNet."""

from __future__ import annotations

import re
from typing import TypeAlias

from torch import Tensor
from torch.nn import functional as F

from kdsearch.config.terms.dsrd import DSRDConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Requirements, Shapes, Term
from kdsearch.distill.ops.features import match_size
from kdsearch.distill.ops.labels import labels_at, masked_mean
from kdsearch.distill.ops.logits import check_logits, soft_kl
from kdsearch.distill.taps import FLOAT, matched_pixels, resized_bytes
from kdsearch.errors import UserError
from kdsearch.models.seg_output import SegOutput

_HEAD = re.compile(r"(bound|bin)\d+")


class DSRD(Term):
    """`w_det * L_det + w_sem * L_sem` (Guo et al., KBS 2024). A reconstruction.

    The formulas are the same author's in a sibling project, their assembly is ours: no distillation code was published.

    - `L_det` sums, over the boundary and binary heads, the squared difference of both networks' probabilities. Networks
      without such heads are compared on a boundary and a foreground map derived from their semantic probabilities.
    - `L_sem` is the soft cross-entropy of the semantic logits, times `T^2` (ours; the published T is 1).

    Peak extra memory: O(B K h w) of the logits, and O(B h w) of each detail head.
    """

    name = "dsrd"
    reconstructed = True

    Config: TypeAlias = DSRDConfig
    config: DSRDConfig

    def __init__(self, config: DSRDConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        check_logits(student, teacher, info)
        shared = sorted(name for name in student if name in teacher and _HEAD.fullmatch(name))
        if config.detail_source == "heads" and not shared:
            raise UserError("dsrd: these networks share no detail heads (bound*, bin*); use detail_source 'derived'.")
        self.heads = () if config.detail_source == "derived" else tuple(shared)
        if config.foreground is not None:
            self._check_foreground(config.foreground)

    def _check_foreground(self, foreground: tuple[int, ...]) -> None:
        if self.heads:
            raise UserError("dsrd: 'foreground' has no effect on detail heads; set detail_source 'derived'.")
        if not foreground or max(foreground) >= self.info.num_classes or len(set(foreground)) < len(foreground):
            raise UserError(
                f"dsrd: foreground {list(foreground)} must name different classes, 0 to {self.info.num_classes - 1}."
            )

    @property
    def requirements(self) -> Requirements:
        return Requirements(taps=self.heads, detail_heads=bool(self.heads))

    def estimate_bytes(self, batch: int) -> int:
        shapes, classes = (self.shapes_s, self.shapes_t), self.info.num_classes
        logits = matched_pixels("logits", *shapes)
        numbers = logits * ((5 if self.config.form == "kl" else 4) * classes + 3)
        if not self.heads:
            numbers += logits * (3 * classes + 5)
        else:
            sizes = [(self.shapes_s[head][0], matched_pixels(head, *shapes)) for head in self.heads]
            saved = sum(pixels * (2 * channels + 1) for channels, pixels in sizes)
            numbers = max(numbers, logits * classes + max(3 * channels * pixels for channels, pixels in sizes)) + saved
        resized = sum(resized_bytes(name, *shapes, batch) for name in ("logits", *self.heads))
        return FLOAT * batch * numbers + resized

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        detail = self._heads_loss if self.heads else self._derived_loss
        return self.config.w_det * detail(student, teacher, target_bhw) + self.config.w_sem * self._semantic_loss(
            student, teacher, target_bhw
        )

    def _semantic_loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor) -> Tensor:
        student_bkhw, teacher_bkhw = match_size(student.logits, teacher.logits)
        _, valid_bhw = labels_at(target_bhw, student_bkhw.shape[-2:])
        temperature = self.config.temperature
        if self.config.form == "kl":
            return masked_mean(soft_kl(student_bkhw, teacher_bkhw, temperature), valid_bhw)
        log_s = F.log_softmax(student_bkhw / temperature, 1)
        entropy_bhw = -(F.softmax(teacher_bkhw / temperature, 1) * log_s).sum(1)
        return masked_mean(entropy_bhw * temperature**2, valid_bhw)

    def _heads_loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor) -> Tensor:
        total = student.logits.new_zeros(())
        for name in self.heads:
            student_b2hw, teacher_b2hw = match_size(student.taps[name], teacher.taps[name])
            _, valid_bhw = labels_at(target_bhw, student_b2hw.shape[-2:])
            error_bhw = (student_b2hw.softmax(1) - teacher_b2hw.softmax(1)).square().sum(1)
            total = total + masked_mean(error_bhw, valid_bhw)
        return total

    def _derived_loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor) -> Tensor:
        student_bkhw, teacher_bkhw = match_size(student.logits, teacher.logits)
        _, valid_bhw = labels_at(target_bhw, student_bkhw.shape[-2:])
        total = student.logits.new_zeros(())
        for map_s, map_t in zip(
            self._derived_maps(student_bkhw, valid_bhw), self._derived_maps(teacher_bkhw, valid_bhw), strict=True
        ):
            total = total + masked_mean(2 * (map_s - map_t).square(), valid_bhw)  # both sides of [1 - x, x]
        return total

    def _derived_maps(self, logits_bkhw: Tensor, valid_bhw: Tensor) -> tuple[Tensor, Tensor]:
        """Boundary and foreground probabilities `[B, h, w]`.

        The boundary is half the L1 distance of a pixel's probabilities to their mean in its 3x3 window, over the
        valid pixels of the window alone, without ignored pixels and the border.
        """
        prob_bkhw = logits_bkhw.softmax(1)
        valid_b1hw = valid_bhw[:, None].to(prob_bkhw.dtype)
        share_b1hw = F.avg_pool2d(valid_b1hw, 3, stride=1, padding=1)
        local_bkhw = F.avg_pool2d(prob_bkhw * valid_b1hw, 3, stride=1, padding=1) / share_b1hw.clamp_min(1 / 9)
        edge_bhw = (prob_bkhw - local_bkhw).abs().sum(1).mul(0.5).clamp(0, 1)
        if self.config.foreground is None:
            return edge_bhw, 1 - prob_bkhw[:, 0]
        return edge_bhw, prob_bkhw[:, list(self.config.foreground)].sum(1)
