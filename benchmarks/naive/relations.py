"""Naive forms of the terms over pairs of places: skd_pair, stc_pair, stc_frames, cirkd, cirkd_memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.naive.clfd import enqueue, store
from benchmarks.naive.pixels import labels, row_kl, valid_rows
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.distill.base import FramePair
from kdsearch.models.seg_output import SegOutput


def nodes(feat: Tensor, node: str) -> Tensor:
    """Unit vectors of the places, `[B, C, n]`."""
    pooled = feat if node == "none" else F.max_pool2d(feat, int(node.removeprefix("stride")), ceil_mode=True)
    return F.normalize(pooled, dim=1).flatten(2)


def pair_error(student: Tensor, teacher: Tensor) -> Tensor:
    matrix_s, matrix_t = (torch.einsum("bcm,bcn->bmn", feat, feat) for feat in (student, teacher))
    return ((matrix_s - matrix_t) ** 2).sum() / matrix_s.numel()


def skd_pair(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    return pair_error(*(nodes(output.taps["head"], term.config.node) for output in (student, teacher)))


def stc_pair(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    weights = {"cnn.head": term.config.beta_c, "transformer.head": 1 - term.config.beta_c}
    total = student.logits.new_zeros(())
    for tap, beta in weights.items():
        ours, theirs = nodes(student.taps["head"], term.config.node), nodes(teacher.taps[tap], term.config.node)
        total = total + beta * pair_error(ours, theirs)
    return total


def stc_frames(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    assert frames is not None
    matrices = [
        torch.einsum("bcm,bcn->bmn", *(nodes(output.taps["head"], term.config.node) for output in pair))
        for pair in ((student, frames.student), (teacher, frames.teacher))
    ]
    return ((matrices[0] - matrices[1]) ** 2).mean()


def cirkd(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    """Image by image, against image by image."""
    label = labels(target, student.taps["head"].shape[-2:])
    maps_s, maps_t = (
        [
            F.normalize(valid_rows(feat[None], own[None]), dim=1)
            for feat, own in zip(output.taps["head"], label, strict=True)
        ]
        for output in (student, teacher)
    )
    total = student.logits.new_zeros(())
    for rows_s, rows_t in zip(maps_s, maps_t, strict=True):
        for keys_s, keys_t in zip(maps_s, maps_t, strict=True):
            total = total + row_kl(rows_s @ keys_s.T, rows_t @ keys_t.T, term.config.tau).sum()
    return total / (len(label) * (label != IGNORE_INDEX).sum())


def cirkd_memory(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    ours, theirs = term.projector(student.taps["head"]), teacher.taps["head"]
    label = labels(target, ours.shape[-2:])
    enqueue(term.pixel_queue, theirs, label, term.config.pixels_per_class)
    enqueue_regions(term.region_queue, F.normalize(theirs, dim=1), label)
    ours, theirs = (F.normalize(valid_rows(feat, label), dim=1) for feat in (ours, theirs))
    total = ours.new_zeros(())
    for queue, count, weight in (
        (term.pixel_queue, 4096, term.config.w_pixel),
        (term.region_queue, 1024, term.config.w_region),
    ):
        classes, length, _ = queue.entries_kqc.shape
        place = queue.random.uniform(length, device=label.device).argsort()[: count // classes + 1]
        fill = queue.fill_k.tolist()
        keys = torch.cat([queue.entries_kqc[c, place * fill[c] // length] for c in range(classes) if fill[c]])
        total = total + weight * row_kl(ours @ keys.T, theirs @ keys.T, term.config.tau).mean()
    return total


@torch.no_grad()
def enqueue_regions(queue: Any, units: Tensor, label: Tensor) -> None:
    """The mean of each class in each image."""
    for image in range(len(label)):
        for c in label[image].unique().tolist():
            if c != IGNORE_INDEX:
                mean = units[image].permute(1, 2, 0)[label[image] == c].mean(0, keepdim=True)
                store(queue, c, F.normalize(mean, dim=1))
