"""The formulas of cirkd and cirkd_memory as plain loops over images and pixels."""

from __future__ import annotations

from torch import Tensor

from .reference import direction, softmax


def divergence(scores_s: list[Tensor], scores_t: list[Tensor]) -> Tensor:
    total = 0
    for s, t in zip(softmax(scores_s), softmax(scores_t), strict=True):
        total = total + t * (t.log() - s.log())
    return total


def cirkd(student: Tensor, teacher: Tensor, valid_bhw: Tensor, tau: float) -> Tensor:
    """Every ordered pair of images; in each, every row of the pixel-to-pixel matrix."""
    places = [[tuple(p) for p in valid.nonzero().tolist()] for valid in valid_bhw]
    unit_s, unit_t = (
        {(b, p): direction(feat[b, :, p[0], p[1]]) for b, image in enumerate(places) for p in image}
        for feat in (student, teacher)
    )
    images = [b for b, image in enumerate(places) if image]
    total, rows = 0, len(unit_s)
    for i in images:
        for j in images:
            for p in places[i]:
                against_s = [unit_s[i, p] @ unit_s[j, q] / tau for q in places[j]]
                against_t = [unit_t[i, p] @ unit_t[j, q] / tau for q in places[j]]
                total = total + divergence(against_s, against_t)
    return total / (rows * len(images))


def pooled(feat: Tensor, valid_bhw: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Means of the valid pixels of each window, and which windows have any."""
    batch, channels, height, width = feat.shape
    size = (-(-height // side), -(-width // side))
    out, any_valid = feat.new_zeros(batch, channels, *size), valid_bhw.new_zeros(batch, *size)
    for b in range(batch):
        for i in range(size[0]):
            for j in range(size[1]):
                window = (slice(i * side, (i + 1) * side), slice(j * side, (j + 1) * side))
                inside = valid_bhw[b][window]
                if inside.any():
                    out[b, :, i, j] = feat[b][:, *window][:, inside].mean(1)
                    any_valid[b, i, j] = True
    return out, any_valid


def against_keys(student: Tensor, teacher: Tensor, keys: list[Tensor], valid_bhw: Tensor, tau: float) -> Tensor:
    total, places = 0, valid_bhw.nonzero().tolist()
    for b, i, j in places:
        s, t = direction(student[b, :, i, j]), direction(teacher[b, :, i, j])
        total = total + divergence([s @ key / tau for key in keys], [t @ key / tau for key in keys])
    return total / len(places)


def regions(teacher: Tensor, target: Tensor, c: int) -> list[Tensor]:
    """The direction of the mean of a class's unit vectors, for each image that shows it."""
    out = []
    for feat, label in zip(teacher, target, strict=True):
        rows = [direction(feat[:, i, j]) for i, j in (label == c).nonzero().tolist()]
        if rows:
            out.append(direction(sum(rows) / len(rows)))
    return out
