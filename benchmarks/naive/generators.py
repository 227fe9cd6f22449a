"""Naive forms of MGD and Af-DCD."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdsearch.distill.base import FramePair
from kdsearch.distill.ops.patch_contrast import patch_contrast
from kdsearch.models.seg_output import SegOutput


def guess(term: Any, student: SegOutput, teacher: SegOutput) -> Tensor:
    parts, feat = term.masked_generator, teacher.taps["c4"]
    batch, _, height, width = feat.shape
    mask = parts.mask.random.uniform(batch, 1, height, width, device=feat.device) >= term.config.mask_ratio
    made: Tensor = parts.generator(parts.adapter(student.taps["c4"]) * mask.to(feat.dtype))
    return made


def mgd(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    return ((guess(term, student, teacher) - teacher.taps["c4"]) ** 2).mean()


def afdcd(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    made, theirs = guess(term, student, teacher), teacher.taps["c4"]
    error = ((made - theirs) ** 2).mean()
    return term.config.w_fd * error + term.config.w_ctr * contrast(term.config, made, theirs)


def contrast(config: Any, made: Tensor, theirs: Tensor) -> Tensor:
    """The matrix of all pairs of a patch, from which positives and negatives are gathered by masks."""
    groups, patch = config.layout.groups, config.layout.patch
    parts = []
    for feat in (made, theirs):
        pooled = F.max_pool2d(feat, config.pool)
        batch, channels, height, width = pooled.shape
        cells = pooled.view(batch, groups, channels // groups, height // patch, patch, width // patch, patch)
        parts.append(cells.permute(0, 3, 5, 4, 6, 1, 2).reshape(-1, patch**2 * groups, channels // groups))
    if config.metric == "l1":
        pairs = -torch.cdist(*parts, p=1) / config.temperature
    else:
        pairs = F.normalize(parts[0], dim=2) @ F.normalize(parts[1], dim=2).transpose(1, 2) / config.temperature
    group = torch.arange(pairs.shape[1], device=pairs.device) % groups
    own = torch.eye(len(group), dtype=torch.bool, device=pairs.device)
    other = group[:, None] != group if config.layout.exclude_same_group else ~own
    positive = pairs[own.expand_as(pairs)].view(-1, 1)
    negative = pairs[other.expand_as(pairs)].view(len(positive), -1)
    logits = torch.cat([positive, negative], 1)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def naive_contrast(
    term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None
) -> Tensor:
    return contrast(term.config, student.taps["wide"], teacher.taps["wide"])


def contrast_alone(
    term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None
) -> Tensor:
    """The term's contrast without its generator, of maps that both have the teacher's channels."""
    made, theirs = (F.max_pool2d(output.taps["wide"], term.config.pool) for output in (student, teacher))
    return patch_contrast(made, theirs, term.config.layout, term.config.metric, term.config.temperature)
