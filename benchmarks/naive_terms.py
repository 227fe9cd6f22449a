"""Each term as its formula reads, the way public codes write it: loops over classes, gathers by mask, pair matrices.

What `benchmarks/terms.py` compares the terms with. A naive form takes the term for its settings, layers and random
state alone, and gives the same value and gradients.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.distill.base import FramePair
from kdsearch.distill.patch_contrast import patch_contrast
from kdsearch.models.output import SegOutput

Naive = Callable[[Any, SegOutput, SegOutput, Tensor, FramePair | None], Tensor]


@dataclass(frozen=True)
class Row:
    """One term in one mode. `tiny` are settings that fit tiny maps; `needs(batch, pixels of a map)` are the bytes
    that the naive form holds, where that may be too much. `ours` is measured in the place of the term's
    call. `cpu_shrink` divides the maps' sides on a CPU. `tolerance` is for fp32.
    """

    label: str
    term: str
    naive: Naive
    config: dict[str, Any] = field(default_factory=dict)
    taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()
    tiny: dict[str, Any] = field(default_factory=dict)
    video: bool = False
    pairs: bool = False
    generator: bool = False
    ours: Naive | None = None
    cpu_shrink: int = 1
    tolerance: float = 1e-4
    needs: Callable[[int, int], int] | None = None


def labels(target: Tensor, size: torch.Size) -> Tensor:
    """Labels at the size of a map, nearest."""
    return F.interpolate(target[:, None].float(), size=size, mode="nearest")[:, 0].long()


def rows_of(map_bchw: Tensor) -> Tensor:
    return map_bchw.permute(0, 2, 3, 1).reshape(-1, map_bchw.shape[1])


def valid_rows(map_bchw: Tensor, label: Tensor) -> Tensor:
    """The pixels with a label, gathered."""
    return map_bchw.permute(0, 2, 3, 1)[label != IGNORE_INDEX]


# ---- logits ----------------------------------------------------------------------------------------------------------


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


# ---- CLFD ------------------------------------------------------------------------------------------------------------


def adapted(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    ours, theirs = term.adapters["head"](student.taps["head"]), teacher.taps["head"]
    return ours, theirs, labels(target, ours.shape[-2:])


def class_means(feat: Tensor, label: Tensor) -> Tensor:
    """Unit mean of each class that occurs, over the batch; a loop with a gather for each."""
    present = [c for c in label.unique().tolist() if c != IGNORE_INDEX]
    return torch.stack([F.normalize(feat.permute(0, 2, 3, 1)[label == c].mean(0), dim=0) for c in present])


def clfd_proto(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    ours, theirs, label = adapted(term, student, teacher, target)
    logits = class_means(ours, label) @ class_means(theirs, label).T / 0.1
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def clfd_spatial(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    label = labels(target, student.taps["head"].shape[-2:])
    present = [c for c in label.unique().tolist() if c != IGNORE_INDEX]

    def vectors(feat: Tensor) -> Tensor:
        return torch.stack([F.normalize((feat.mean(1) * (label == c)).flatten(), dim=0) for c in present])

    logits = vectors(student.taps["head"]) @ vectors(teacher.taps["head"]).T / 0.1
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def clfd_relation(
    term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None
) -> Tensor:
    label = labels(target, student.taps["head"].shape[-2:])

    def others(feat: Tensor) -> Tensor:
        means = class_means(feat, label)
        logits = means @ means.T / 0.2
        return torch.stack([torch.cat([row[:c], row[c + 1 :]]) for c, row in enumerate(logits)])

    ours, theirs = others(student.taps["head"]), others(teacher.taps["head"])
    return -(theirs.softmax(1) * ours.softmax(1).log()).sum(1).mean()


def clfd_pixel_proto(
    term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None
) -> Tensor:
    ours, theirs, label = adapted(term, student, teacher, target)
    anchors = F.normalize(valid_rows(ours, label), dim=1)
    picked = label[label != IGNORE_INDEX]
    place = (picked[:, None] == picked.unique()).long().argmax(1)
    return F.cross_entropy(anchors @ class_means(theirs, label).T / 0.1, place)


def clfd_pixel_pixel(
    term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None
) -> Tensor:
    """Every pixel against every pixel: a mask of positives and a log-probability for each pair."""
    ours, theirs, label = adapted(term, student, teacher, target)
    anchors, keys = (F.normalize(valid_rows(feat, label), dim=1) for feat in (ours, theirs))
    picked = label[label != IGNORE_INDEX]
    positive = (picked[:, None] == picked).to(anchors.dtype)
    logits = anchors @ keys.T / 0.1
    log_prob = logits - logits.exp().sum(1, keepdim=True).log()
    return -((positive * log_prob).sum(1) / positive.sum(1)).mean()


def clfd_sampled(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    """The same on up to m pixels a class, picked in a loop."""
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


def clfd_memory(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
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


# ---- maps compared directly ------------------------------------------------------------------------------------------


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


def dist(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    label = labels(target, student.logits.shape[-2:])

    def correlation(dim: int) -> Tensor:
        ours, theirs = (valid_rows(output.logits.softmax(1), label) for output in (student, teacher))
        ours, theirs = (prob - prob.mean(dim, keepdim=True) for prob in (ours, theirs))
        return F.cosine_similarity(ours, theirs, dim=dim).mean()

    return term.config.beta * (1 - correlation(1)) + term.config.gamma * (1 - correlation(0))


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


# ---- pairs of places -------------------------------------------------------------------------------------------------


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
        [F.normalize(valid_rows(feat[None], own[None]), dim=1) for feat, own in zip(output.taps["head"], label)]
        for output in (student, teacher)
    )
    total = student.logits.new_zeros(())
    for rows_s, rows_t in zip(maps_s, maps_t, strict=True):
        for keys_s, keys_t in zip(maps_s, maps_t, strict=True):
            total = total + row_kl(rows_s @ keys_s.T, rows_t @ keys_t.T, term.config.tau).sum()
    return total / (len(label) * (label != IGNORE_INDEX).sum())


def row_kl(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    p, log_q = F.softmax(teacher / tau, 1), F.log_softmax(student / tau, 1)
    return F.kl_div(log_q, p, reduction="none").sum(1)


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


# ---- FRKDNet ---------------------------------------------------------------------------------------------------------


def frkd_refine(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
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


def centres(feat: Tensor, label: Tensor) -> dict[int, Tensor]:
    present = [c for c in label.unique().tolist() if c != IGNORE_INDEX]
    return {c: feat.permute(0, 2, 3, 1)[label == c].mean(0) for c in present}


def frkd_location(
    term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None
) -> Tensor:
    label = labels(target, student.taps["head"].shape[-2:])

    def profile(feat: Tensor) -> Tensor:
        cosines = [F.cosine_similarity(feat, mean[:, None, None], dim=1) for mean in centres(feat, label).values()]
        return valid_rows(torch.stack(cosines, 1), label)

    return row_kl(profile(student.taps["head"]), profile(teacher.taps["head"]), term.config.tau).mean()


def frkd_inter(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    label = labels(target, student.taps["head"].shape[-2:])

    def distances(feat: Tensor) -> Tensor:
        pairs = itertools.combinations(centres(feat, label).values(), 2)
        far = torch.stack([(a - b).norm() for a, b in pairs])
        return far / far.mean()

    return ((distances(student.taps["head"]) - distances(teacher.taps["head"])) ** 2).mean()


def frkd_intra(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    label = labels(target, student.taps["head"].shape[-2:])

    def cosines(feat: Tensor) -> Tensor:
        rows = feat.permute(0, 2, 3, 1)
        return torch.cat([F.cosine_similarity(rows[label == c], mean, 1) for c, mean in centres(feat, label).items()])

    return ((cosines(student.taps["head"]) - cosines(teacher.taps["head"])) ** 2).mean()


# ---- video -----------------------------------------------------------------------------------------------------------


def warped(feat: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """What the flow leads to, and whether that lies in the frame."""
    height, width = feat.shape[-2:]
    y, x = torch.meshgrid(
        *(torch.arange(n, device=feat.device, dtype=feat.dtype) for n in (height, width)), indexing="ij"
    )
    x, y = x + flow[:, 0], y + flow[:, 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
    return F.grid_sample(feat, grid, padding_mode="border", align_corners=True), inside


def visible(frames: FramePair) -> Tensor:
    """V of ETC, at the input's size."""
    other, _ = warped(frames.next_image_bchw, frames.flow_b2hw)
    return torch.exp(-(frames.image_bchw - other).sum(1, keepdim=True).abs())


def at_map_size(frames: FramePair, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Flow and V at a smaller size."""
    scale = frames.flow_b2hw.shape[-1] // size[-1]
    flow = F.interpolate(frames.flow_b2hw, size, mode="bilinear", align_corners=False) / scale
    return flow, F.avg_pool2d(visible(frames), scale)


def stc_motion(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    assert frames is not None
    now, later = student.logits, frames.student.logits
    if term.config.resolution == "full":
        flow, weight = frames.flow_b2hw, visible(frames)
        size = flow.shape[-2:]
        now, later = (F.interpolate(z, size, mode="bilinear", align_corners=True) for z in (now, later))
    else:
        flow, weight = at_map_size(frames, now.shape[-2:])
    if term.config.space == "prob":
        now, later = now.softmax(1), later.softmax(1)
    other, inside = warped(later, flow)
    error = (weight * now - weight * other) ** 2
    return error.permute(0, 2, 3, 1)[inside].mean() if term.config.mask_out_of_frame else error.mean()


def stc_temporal_kd(
    term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None
) -> Tensor:
    assert frames is not None
    label = labels(target, student.logits.shape[-2:])
    flow, weight = at_map_size(frames, student.logits.shape[-2:])
    p, inside = warped(frames.teacher.logits.softmax(1), flow)
    agree = (p.argmax(1) == teacher.logits.argmax(1)).to(p.dtype)
    error = (p * (p.log() - student.logits.softmax(1).log())).sum(1)
    return (weight[:, 0] * agree * error)[inside & (label != IGNORE_INDEX)].mean()


# ---- adversarial -----------------------------------------------------------------------------------------------------


def adversarial(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    """With the discriminator's gradients too, which codes that do not freeze it compute and throw away."""
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


# ---- generators and Af-DCD -------------------------------------------------------------------------------------------


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
    pooled = (F.max_pool2d(output.taps["wide"], term.config.pool) for output in (student, teacher))
    return patch_contrast(*pooled, term.config.layout, term.config.metric, term.config.temperature)


def second_loss(term: Any, student: SegOutput, teacher: SegOutput, target: Tensor, frames: FramePair | None) -> Tensor:
    value: Tensor = term.second_loss()
    return value


HEAD = ("head",)
BACK = ("c4",)
BRANCHES = ("cnn.head", "transformer.head")
DETAILS = ("bound1", "bound2", "bound3", "bin1", "bin2", "bin3")

ETC = {"space": "logit", "resolution": "full", "mask_out_of_frame": False}


def pair_bytes(matrices: int) -> Callable[[int, int], int]:
    """So many fp32 matrices of an image's places by its places."""
    return lambda batch, n: 4 * matrices * batch * n**2


SHARP = 1e-3
"""Tolerance of Af-DCD's logits: L1 distances of hundreds over 0.07, which fp32 rounds to about 1e-3."""
TINY_CONTRAST = {"pool": 1}


def contrast_row(mode: str, metric: str) -> Row:
    config = {"tap": "wide", "projector": "light", "mode": mode, "metric": metric}
    label = f"afdcd, contrast alone, {mode}, {metric}"
    taps = ("wide",)
    return Row(label, "afdcd", naive_contrast, config, taps, tiny=TINY_CONTRAST, ours=contrast_alone, tolerance=SHARP)


ROWS: list[Row] = [
    Row("kd", "kd", kd),
    Row("dsrd, derived", "dsrd", dsrd),
    Row("dsrd, heads", "dsrd", dsrd, taps=DETAILS),
    Row("clfd, proto", "clfd", clfd_proto, taps=HEAD),
    Row("clfd, spatial", "clfd", clfd_spatial, {"mode": "spatial"}, HEAD),
    Row("clfd, relation", "clfd", clfd_relation, {"mode": "relation"}, HEAD),
    Row("clfd, pixel_proto", "clfd", clfd_pixel_proto, {"mode": "pixel_proto"}, HEAD),
    Row(
        "clfd, pixel_pixel, exact", "clfd", clfd_pixel_pixel, {"mode": "pixel_pixel", "anchors_per_class": None}, HEAD,
        pairs=True, needs=lambda batch, n: 20 * (batch * n) ** 2,
    ),
    Row("clfd, pixel_pixel, 64 a class", "clfd", clfd_sampled, {"mode": "pixel_pixel"}, HEAD),
    Row("clfd, memory", "clfd", clfd_memory, {"mode": "memory"}, HEAD),
    Row("cwd", "cwd", cwd),
    Row("cwd_feature", "cwd_feature", cwd_feature, taps=HEAD),
    Row("fitnet", "fitnet", fitnet, taps=HEAD),
    Row("at", "at", attention, taps=HEAD),
    Row("dist", "dist", dist),
    Row("ifvd", "ifvd", ifvd, taps=HEAD),
    Row("skd_pair, stride2", "skd_pair", skd_pair, taps=HEAD, pairs=True),
    Row("skd_pair, every pixel", "skd_pair", skd_pair, {"node": "none"}, HEAD, pairs=True, needs=pair_bytes(4)),
    Row("stc_pair, stride2", "stc_pair", stc_pair, taps=HEAD, teacher_taps=BRANCHES, pairs=True),
    Row(
        "stc_pair, every pixel", "stc_pair", stc_pair, {"node": "none"}, HEAD, BRANCHES, pairs=True, needs=pair_bytes(5)
    ),
    Row("stc_frames", "stc_frames", stc_frames, taps=HEAD, video=True, pairs=True, needs=pair_bytes(5)),
    Row("stc_motion", "stc_motion", stc_motion, video=True),
    Row("stc_motion, as ETC", "stc_motion", stc_motion, ETC, video=True),
    Row("stc_temporal_kd", "stc_temporal_kd", stc_temporal_kd, video=True),
    Row("adversarial", "adversarial", adversarial),
    Row("adversarial, hinge step of D", "adversarial", discriminator, ours=second_loss),
    Row("adversarial, wgan_gp step of D", "adversarial", discriminator, {"mode": "wgan_gp"}, ours=second_loss),
    Row("cirkd", "cirkd", cirkd, taps=HEAD, pairs=True, needs=lambda batch, n: 12 * (batch * n) ** 2),
    Row("cirkd_memory", "cirkd_memory", cirkd_memory, taps=HEAD),
    Row("frkd_refine", "frkd_refine", frkd_refine, taps=HEAD),
    Row("frkd_location", "frkd_location", frkd_location, taps=HEAD),
    Row("frkd_inter", "frkd_inter", frkd_inter, taps=HEAD),
    Row("frkd_intra", "frkd_intra", frkd_intra, taps=HEAD),
    Row("mgd", "mgd", mgd, taps=BACK, generator=True, cpu_shrink=4),
    Row("mgd, enhanced", "mgd", mgd, {"projector": "enhanced"}, BACK, generator=True, cpu_shrink=4),
    Row("mgd, light", "mgd", mgd, {"projector": "light"}, BACK, tiny={"light_rank": 8}, generator=True),
    Row(
        "afdcd, light", "afdcd", afdcd, {"projector": "light"}, BACK,
        tiny={"light_rank": 8, **TINY_CONTRAST}, generator=True, tolerance=SHARP,
    ),
    contrast_row("omni", "l1"),
    contrast_row("omni", "cos"),
    contrast_row("spatial", "l1"),
    contrast_row("channel", "l1"),
]  # fmt: skip
