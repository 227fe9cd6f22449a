"""The formulas of the frkd terms as plain loops over pixels and classes."""

from __future__ import annotations

import math

from torch import Tensor

from .reference import by_class, direction, softmax, valid_pixels

Place = tuple[int, int, int]


def entropies(logits: Tensor, target: Tensor) -> dict[Place, float]:
    """Of each valid pixel, from 0 to 1."""
    out = {}
    for b, i, j in valid_pixels(target):
        prob = [p.item() for p in softmax(list(logits[b, :, i, j]))]
        out[b, i, j] = -sum(p * math.log(p) for p in prob if p > 0) / math.log(len(prob))
    return out


def foreground(logits: Tensor, target: Tensor, rho: float | None) -> set[Place]:
    entropy, chosen = entropies(logits, target), set()
    for b in range(len(target)):
        own = {place: value for place, value in entropy.items() if place[0] == b}
        ranked = sorted(own.values())
        if not ranked:
            continue
        limit = sum(ranked) / len(ranked)
        if rho is not None:
            at = rho * (len(ranked) - 1)
            low, high = ranked[math.floor(at)], ranked[math.ceil(at)]
            limit = low + (high - low) * (at - math.floor(at))
        chosen |= {place for place, value in own.items() if value <= limit}
    return chosen


def right(logits: Tensor, target: Tensor) -> set[Place]:
    return {(b, i, j) for b, i, j in valid_pixels(target) if logits[b, :, i, j].argmax() == target[b, i, j]}


def normalised(feat: Tensor, target: Tensor, norm: str) -> dict[Place, Tensor]:
    places = valid_pixels(target)
    rows = {(b, i, j): feat[b, :, i, j] for b, i, j in places}
    if norm == "l2":
        return {place: direction(row) for place, row in rows.items()}
    if norm == "std":
        out = {}
        for b in range(len(feat)):
            own = {place: row for place, row in rows.items() if place[0] == b}
            mean = sum(own.values()) / len(own)
            variance = sum((row - mean) ** 2 for row in own.values()) / len(own)
            out |= {place: (row - mean) / (variance + 1e-5).sqrt() for place, row in own.items()}
        return out
    return rows


def refine(student: Tensor, teacher: Tensor, target: Tensor, weights: dict[Place, float], norm: str) -> Tensor:
    """Mean over the weights of the squared difference; 0 where they are all 0."""
    g_s, g_t = normalised(student, target, norm), normalised(teacher, target, norm)
    total = student.sum() * 0
    for place, weight in weights.items():
        total = total + weight * (g_s[place] - g_t[place]).square().sum() / len(g_t[place])
    return total / (sum(weights.values()) or 1)


def means(feat: Tensor, target: Tensor) -> dict[int, Tensor]:
    return {c: sum(feat[b, :, i, j] for b, i, j in own) / len(own) for c, own in by_class(target).items()}


def location(student: Tensor, teacher: Tensor, target: Tensor, places: set[Place], tau: float) -> Tensor:
    total = 0
    mu_s, mu_t = means(student, target), means(teacher, target)
    for b, i, j in places:
        a_s = softmax([direction(student[b, :, i, j]) @ direction(mu) / tau for mu in mu_s.values()])
        a_t = softmax([direction(teacher[b, :, i, j]) @ direction(mu) / tau for mu in mu_t.values()])
        total = total + sum(t * (t.log() - s.log()) for s, t in zip(a_s, a_t, strict=True))
    return total / len(places)


def inter(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    def relative(feat: Tensor) -> list[Tensor]:
        mu = means(feat, target)
        distances = [(mu[a] - mu[b]).square().sum().sqrt() for a in mu for b in mu if a < b]
        return [d / (sum(distances) / len(distances)) for d in distances]

    d_s, d_t = relative(student), relative(teacher)
    return sum((a - b) ** 2 for a, b in zip(d_s, d_t, strict=True)) / len(d_s)


def intra(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    mu_s, mu_t = means(student, target), means(teacher, target)
    total, places = 0, valid_pixels(target)
    for b, i, j in places:
        c = int(target[b, i, j])
        cos_s = direction(student[b, :, i, j]) @ direction(mu_s[c])
        cos_t = direction(teacher[b, :, i, j]) @ direction(mu_t[c])
        total = total + (cos_s - cos_t) ** 2
    return total / len(places)
