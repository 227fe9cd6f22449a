"""Naive forms of the terms that compare feature maps: cwd, fitnet, at, ifvd."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from benchmarks.naive.pixels import labels
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.distill.base import FramePair
from kdsearch.models.seg_output import SegOutput


def cwd(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    return channel_kl(student.logits, teacher.logits, term.config.tau)


def cwd_feature(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    return channel_kl(term.adapter(student.taps["head"]), teacher.taps["head"], term.config.tau)


def channel_kl(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    batch, channels = student.shape[:2]
    p, q = (F.softmax(feat.reshape(batch * channels, -1) / tau, 1) for feat in (teacher, student))
    return tau**2 * (p * (p.log() - q.log())).sum() / (batch * channels)


def fitnet(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    return ((term.adapter(student.taps["head"]) - teacher.taps["head"]) ** 2).mean()


def attention(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    ours, theirs = (F.normalize(output.taps["head"].pow(2).mean(1).flatten(1)) for output in (student, teacher))
    return (ours - theirs).pow(2).mean()


def ifvd(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    """A map of every pixel's centre, filled class by class; an ignored pixel is its own centre."""
    label = labels(target, student.taps["head"].shape[-2:])

    def cosine(feat: Tensor) -> Tensor:
        centre = feat.clone()
        for c in range(term.info.num_classes):
            mask = (label == c)[:, None].to(feat.dtype)
            mean = (feat * mask).sum((2, 3), keepdim=True) / mask.sum((2, 3), keepdim=True).clamp_min(1)
            centre = (1 - mask) * centre + mask * mean
        return F.cosine_similarity(feat, centre, dim=1)

    error = (cosine(student.taps["head"]) - cosine(teacher.taps["head"])) ** 2
    return error.sum() / (label != IGNORE_INDEX).sum()
