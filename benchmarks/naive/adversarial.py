"""Naive forms of the adversarial term and of its discriminator's step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdsearch.distill.base import FramePair
from kdsearch.models.seg_output import SegOutput


def student(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    """With the gradients of the discriminator, which implementations that do not freeze it compute and discard."""
    weights = {name: value.detach().requires_grad_() for name, value in term.discriminator.named_parameters()}
    term.discriminator.eval()
    return -torch.func.functional_call(term.discriminator, weights, (student.logits,)).mean()


def discriminator(
    term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None
) -> Tensor:
    judge, fake, real = term.discriminator, student.logits.detach(), teacher.logits
    if term.config.mode == "hinge":
        return F.relu(1 - judge(real)).mean() + F.relu(1 + judge(fake)).mean()
    share = term.random.uniform(len(fake), 1, 1, 1, device=fake.device).to(fake.dtype)
    between = (fake + share * (real - fake)).requires_grad_()
    score = judge(between).flatten(1).mean(1)
    slope = torch.autograd.grad(score, between, torch.ones_like(score), create_graph=True)[0]
    penalty = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
    return judge(fake).mean() - judge(real).mean() + term.config.gp_weight * penalty


def adversary_loss(
    term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None
) -> Tensor:
    value: Tensor = term.adversary_loss()
    return value
