"""SKD's holistic term: a discriminator separates student from teacher, and the student learns to deceive it."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import parametrize

from kdsearch.config.terms.adversarial import AdversarialConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Shapes, Term
from kdsearch.distill.ops.discriminator import Discriminator
from kdsearch.distill.ops.features import match_size
from kdsearch.distill.ops.labels import masked_mean
from kdsearch.distill.ops.logits import check_logits
from kdsearch.distill.ops.sampling import RandomState
from kdsearch.distill.view import any_inside
from kdsearch.models.seg_output import SegOutput


class Adversarial(Term):
    """`-mean of D(z_S)`, with a discriminator D of logits that trains alongside the student.

    Holistic distillation of SKD (Liu et al., CVPR 2019), and a spatial term of STC-KD (Wang et al., 2022). The loss of
    D (`adversary_loss`), with the teacher's logits as the real ones:

    - `hinge`: `E[relu(1 - D(z_T))] + E[relu(1 + D(z_S))]`, Adam (CIRKD; published weight of the term 0.001);
    - `wgan_gp`: `E[D(z_S)] - E[D(z_T)] + gp_weight * E[(||grad D(x)|| - 1)^2]`, x at random between an image's logits;
      SGD with momentum 0.9 and weight decay 5e-4 (SKD; published weight 0.1, which also scales the loss of D:
      this corresponds to `lr` 4e-5 here).

    The value may be negative and is no measure of progress. D reads whole maps, ignored pixels included, at the finer
    of both networks' sizes; scores of windows outside the image do not count. `loss` changes no state; `adversary_loss`
    updates D's spectral norms and draws x. Under DDP the gradients of D are those of the rank until the caller averages
    them.

    Peak extra memory: O(B width h w), O(B (h w / 64)^2) for attention and a copy of D's weights, O(width^2).
    `adversary_loss` runs after the student's backward pass and takes about twice as much (up to four times in
    `wgan_gp`).
    """

    name = "adversarial"

    Config: TypeAlias = AdversarialConfig
    config: AdversarialConfig

    def __init__(self, config: AdversarialConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        check_logits(student, teacher, info)
        size = max((shapes["logits"][1:] for shapes in (student, teacher)), key=lambda size: size[0] * size[1])
        self.discriminator = Discriminator(info.num_classes, size, config.width).requires_grad_(False)
        if config.mode == "wgan_gp":
            self.random = RandomState()
        self._last: tuple[Tensor, Tensor, Tensor | None] | None = None

    def estimate_bytes(self, batch: int) -> int:
        return self.discriminator.estimate_bytes(batch)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        student_bkhw, teacher_bkhw = match_size(student.logits, teacher.logits)
        self._last = student_bkhw.detach(), teacher_bkhw, student.inside_bhw
        self.discriminator.eval()
        return -_mean(self.discriminator(student_bkhw), student.inside_bhw)

    def adversary_optimizer(self) -> torch.optim.Optimizer:
        parameters = list(self.discriminator.parameters())
        if self.config.mode == "hinge":
            return torch.optim.Adam(parameters, lr=self.config.lr, betas=(0.9, 0.99))
        return torch.optim.SGD(parameters, lr=self.config.lr, momentum=0.9, weight_decay=5e-4)

    def adversary_loss(self) -> Tensor:
        assert self._last is not None, "adversary_loss needs a forward pass first"
        student_bkhw, teacher_bkhw, inside_bhw = self._last
        self.discriminator.train(self.training)
        # Cached: all maps of a step use the same weights, and spectral norms iterate once.
        with torch.autocast(student_bkhw.device.type, enabled=False), parametrize.cached():
            fake_b1hw: Tensor = self.discriminator(student_bkhw)
            real_b1hw: Tensor = self.discriminator(teacher_bkhw)
            if self.config.mode == "hinge":
                return _mean(F.relu(1 - real_b1hw), inside_bhw) + _mean(F.relu(1 + fake_b1hw), inside_bhw)
            penalty = self._gradient_penalty(student_bkhw, teacher_bkhw)
            return _mean(fake_b1hw, inside_bhw) - _mean(real_b1hw, inside_bhw) + self.config.gp_weight * penalty

    def _gradient_penalty(self, student_bkhw: Tensor, teacher_bkhw: Tensor) -> Tensor:
        share_b111 = self.random.of_images(len(student_bkhw), 1, 1, 1, device=student_bkhw.device)
        between_bkhw = torch.lerp(student_bkhw, teacher_bkhw, share_b111.to(student_bkhw.dtype)).requires_grad_()
        score = self.discriminator(between_bkhw).mean((1, 2, 3)).sum()
        (slope_bkhw,) = torch.autograd.grad(score, between_bkhw, create_graph=True)
        norm_b: Tensor = torch.linalg.vector_norm(slope_bkhw, dim=(1, 2, 3))
        return (norm_b - 1).square().mean()


def _mean(score_b1hw: Tensor, inside_bhw: Tensor | None) -> Tensor:
    """Mean of the scores whose window shows a part of the image."""
    return masked_mean(score_b1hw[:, 0], any_inside(inside_bhw, score_b1hw.shape[-2:]))
