"""Naive forms of FRKDNet's terms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.naive.pixels import centres, labels, row_kl, valid_rows
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.distill.base import FramePair
from kdsearch.models.seg_output import SegOutput


def refine(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    """Image by image: normalise over its valid pixels, split them by the teacher's entropy."""
    adapted, label = term.adapter(student.taps["head"]), labels(target, student.taps["head"].shape[-2:])
    front, back = [], []
    for image, own in enumerate(label):
        valid = own != IGNORE_INDEX
        ours, theirs = (feat[image].permute(1, 2, 0)[valid] for feat in (adapted, teacher.taps["head"]))
        ours, theirs = ((feat - feat.mean(0)) / (feat.var(0, correction=0) + 1e-5).sqrt() for feat in (ours, theirs))
        prob = teacher.logits[image].permute(1, 2, 0)[valid].softmax(1)
        entropy = -(prob * prob.log()).sum(1) / math.log(prob.shape[1])
        certain = entropy <= entropy.mean()
        front.append((ours[certain] - theirs[certain]) ** 2)
        back.append((ours[~certain] - theirs[~certain]) ** 2)
    return torch.cat(front).mean() + term.config.bg_ratio * torch.cat(back).mean()


def location(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    label = labels(target, student.taps["head"].shape[-2:])

    def profile(feat: Tensor) -> Tensor:
        cosines = [F.cosine_similarity(feat, mean[:, None, None], dim=1) for mean in centres(feat, label).values()]
        return valid_rows(torch.stack(cosines, 1), label)

    return row_kl(profile(student.taps["head"]), profile(teacher.taps["head"]), term.config.tau).mean()


def inter(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    label = labels(target, student.taps["head"].shape[-2:])

    def distances(feat: Tensor) -> Tensor:
        pairs = itertools.combinations(centres(feat, label).values(), 2)
        far = torch.stack([(a - b).norm() for a, b in pairs])
        return far / far.mean()

    return ((distances(student.taps["head"]) - distances(teacher.taps["head"])) ** 2).mean()


def intra(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    label = labels(target, student.taps["head"].shape[-2:])

    def cosines(feat: Tensor) -> Tensor:
        rows = feat.permute(0, 2, 3, 1)
        return torch.cat([F.cosine_similarity(rows[label == c], mean, 1) for c, mean in centres(feat, label).items()])

    return ((cosines(student.taps["head"]) - cosines(teacher.taps["head"])) ** 2).mean()
