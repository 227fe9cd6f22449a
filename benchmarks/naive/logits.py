"""Naive forms of the terms on logits: kd, dsrd, dist."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.naive.pixels import labels, valid_rows
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.distill.base import FramePair
from kdsearch.models.seg_output import SegOutput


def pixel_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over rows of KL, in probabilities."""
    p, q = F.softmax(teacher / temperature, 1), F.softmax(student / temperature, 1)
    return (p * (p.log() - q.log())).sum(1).mean() * temperature**2


def kd(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    label = labels(target, student.logits.shape[-2:])
    return pixel_kl(valid_rows(student.logits, label), valid_rows(teacher.logits, label), term.config.temperature)


def dsrd(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    total = kd(term, student, teacher, target, frames) * term.config.w_sem
    if term.heads:
        pairs = [(student.taps[name].softmax(1), teacher.taps[name].softmax(1)) for name in term.heads]
    else:
        label = labels(target, student.logits.shape[-2:])
        details = [detail_maps(output.logits, label) for output in (student, teacher)]
        pairs = list(zip(*details, strict=True))
    for ours, theirs in pairs:
        label = labels(target, ours.shape[-2:])
        error = ((ours - theirs) ** 2).sum(1)
        total = total + term.config.w_det * error[label != IGNORE_INDEX].mean()
    return total


def detail_maps(logits: Tensor, label: Tensor) -> list[Tensor]:
    """Two channels `[1 - x, x]` each: boundary and foreground."""
    valid = (label != IGNORE_INDEX)[:, None].to(logits.dtype)
    prob = logits.softmax(1)
    batch, classes, height, width = prob.shape
    near = F.unfold(prob * valid, 3, padding=1).view(batch, classes, 9, height, width).sum(2)
    count = F.unfold(valid, 3, padding=1).view(batch, 1, 9, height, width).sum(2)
    edge = ((prob - near / count.clamp_min(1)).abs().sum(1) / 2).clamp(0, 1)
    foreground = prob[:, 1:].sum(1)
    return [torch.stack([1 - x, x], 1) for x in (edge, foreground)]


def dist(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    label = labels(target, student.logits.shape[-2:])

    def correlation(dim: int) -> Tensor:
        ours, theirs = (valid_rows(output.logits.softmax(1), label) for output in (student, teacher))
        ours, theirs = (prob - prob.mean(dim, keepdim=True) for prob in (ours, theirs))
        return F.cosine_similarity(ours, theirs, dim=dim).mean()

    return term.config.beta * (1 - correlation(1)) + term.config.gamma * (1 - correlation(0))
