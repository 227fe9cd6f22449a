"""Naive forms of CLFD."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.naive.pixels import labels, rows_of, valid_rows
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.distill.base import FramePair
from kdsearch.models.seg_output import SegOutput


def adapted(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    ours, theirs = term.adapters["head"](student.taps["head"]), teacher.taps["head"]
    return ours, theirs, labels(target, ours.shape[-2:])


def class_means(feat: Tensor, label: Tensor) -> Tensor:
    """Unit mean of each class that occurs, over the batch; a loop with a gather for each."""
    present = [c for c in label.unique().tolist() if c != IGNORE_INDEX]
    return torch.stack([F.normalize(feat.permute(0, 2, 3, 1)[label == c].mean(0), dim=0) for c in present])


def proto(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    ours, theirs, label = adapted(term, student, teacher, target)
    logits = class_means(ours, label) @ class_means(theirs, label).T / 0.1
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def spatial(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    label = labels(target, student.taps["head"].shape[-2:])
    present = [c for c in label.unique().tolist() if c != IGNORE_INDEX]

    def vectors(feat: Tensor) -> Tensor:
        return torch.stack([F.normalize((feat.mean(1) * (label == c)).flatten(), dim=0) for c in present])

    logits = vectors(student.taps["head"]) @ vectors(teacher.taps["head"]).T / 0.1
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def relation(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    label = labels(target, student.taps["head"].shape[-2:])

    def others(feat: Tensor) -> Tensor:
        means = class_means(feat, label)
        logits = means @ means.T / 0.2
        return torch.stack([torch.cat([row[:c], row[c + 1 :]]) for c, row in enumerate(logits)])

    ours, theirs = others(student.taps["head"]), others(teacher.taps["head"])
    return -(theirs.softmax(1) * ours.softmax(1).log()).sum(1).mean()


def pixel_proto(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    ours, theirs, label = adapted(term, student, teacher, target)
    anchors = F.normalize(valid_rows(ours, label), dim=1)
    picked = label[label != IGNORE_INDEX]
    place = (picked[:, None] == picked.unique()).long().argmax(1)
    return F.cross_entropy(anchors @ class_means(theirs, label).T / 0.1, place)


def pixel_pixel(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    """Every pixel against every pixel: a mask of positives and a log-probability for each pair."""
    ours, theirs, label = adapted(term, student, teacher, target)
    anchors, keys = (F.normalize(valid_rows(feat, label), dim=1) for feat in (ours, theirs))
    picked = label[label != IGNORE_INDEX]
    positive = (picked[:, None] == picked).to(anchors.dtype)
    logits = anchors @ keys.T / 0.1
    log_prob = logits - logits.exp().sum(1, keepdim=True).log()
    return -((positive * log_prob).sum(1) / positive.sum(1)).mean()


def sampled(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    """The same on up to m pixels per class, picked in a loop."""
    ours, theirs, label = adapted(term, student, teacher, target)
    score = term.random.uniform(1, label.numel(), device=label.device)[0]
    places = []
    for c in label.unique().tolist():
        if c != IGNORE_INDEX:
            own = (label.flatten() == c).nonzero()[:, 0]
            places.append(own[score[own].argsort(descending=True)[: term.config.anchors_per_class]])
    place = torch.cat(places)
    anchors, keys = (F.normalize(rows_of(feat)[place], dim=1) for feat in (ours, theirs))
    picked = label.flatten()[place]
    positive = (picked[:, None] == picked).to(anchors.dtype)
    logits = anchors @ keys.T / 0.1
    log_prob = logits - logits.exp().sum(1, keepdim=True).log()
    return -((positive * log_prob).sum(1) / positive.sum(1)).mean()


def memory(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    """Each pixel against the queue of its class, with the queues of all others as negatives."""
    ours, theirs, label = adapted(term, student, teacher, target)
    queue = term.queues["head"]
    enqueue(queue, theirs, label, term.config.pixels)
    classes = len(queue.entries_kqc)
    fill = queue.fill_k.tolist()
    keys = {c: queue.entries_kqc[c, : fill[c]].clone() for c in range(classes) if fill[c]}
    anchors = F.normalize(ours, dim=1).permute(0, 2, 3, 1)
    losses = []
    for c, own_keys in keys.items():
        if (label == c).any():
            own = anchors[label == c]
            others = torch.cat([key for k, key in keys.items() if k != c])
            positive, negative = own @ own_keys.T / 0.07, own @ others.T / 0.07
            against = negative.exp().sum(1, keepdim=True)
            losses.append(-(positive - (positive.exp() + against).log()).mean(1))
    return torch.cat(losses).mean()


@torch.no_grad()
def enqueue(queue: Any, feat: Tensor, label: Tensor, count: int) -> None:
    """Up to `count` random pixels of each class, image by image and class by class."""
    score = queue.random.uniform(len(label), label[0].numel(), device=label.device)
    units = F.normalize(feat, dim=1).flatten(2)
    for image in range(len(label)):
        for c in label[image].unique().tolist():
            if c == IGNORE_INDEX:
                continue
            own = (label[image].flatten() == c).nonzero()[:, 0]
            picked = own[score[image, own].argsort(descending=True)[:count]]
            store(queue, c, units[image][:, picked].T)


def store(queue: Any, c: int, entries: Tensor) -> None:
    length = queue.entries_kqc.shape[1]
    slots = (queue.next_k[c] + torch.arange(len(entries), device=entries.device)) % length
    queue.entries_kqc[c, slots] = entries
    queue.next_k[c] = (queue.next_k[c] + len(entries)) % length
    queue.fill_k[c] = (queue.fill_k[c] + len(entries)).clamp_max(length)
