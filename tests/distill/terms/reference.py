"""The terms' formulas as plain loops over pixels and classes, in fp64. Slow and obvious: what the terms must equal."""

from __future__ import annotations

import math

from torch import Tensor

from kdsearch.data.info import IGNORE_INDEX


def softmax(values: list[Tensor]) -> list[Tensor]:
    top = max(value.item() for value in values)
    exps = [(value - top).exp() for value in values]
    return [e / sum(exps) for e in exps]


def valid_pixels(target_bhw: Tensor) -> list[tuple[int, int, int]]:
    return [tuple(p) for p in (target_bhw != IGNORE_INDEX).nonzero().tolist()]


def kl(student: Tensor, teacher: Tensor, target: Tensor, temperature: float, entropy: bool = False) -> Tensor:
    """Mean over valid pixels of T^2 KL; with `entropy`, of the cross-entropy instead."""
    total, places = 0, valid_pixels(target)
    for b, i, j in places:
        q_s = softmax([z / temperature for z in student[b, :, i, j]])
        q_t = softmax([z / temperature for z in teacher[b, :, i, j]])
        for s, t in zip(q_s, q_t, strict=True):
            total = total + temperature**2 * (-t * s.log() if entropy else t * (t.log() - s.log()))
    return total / len(places)


def squared_probabilities(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    total, places = 0, valid_pixels(target)
    for b, i, j in places:
        for s, t in zip(softmax(list(student[b, :, i, j])), softmax(list(teacher[b, :, i, j])), strict=True):
            total = total + (s - t) ** 2
    return total / len(places)


def derived_detail(student: Tensor, teacher: Tensor, target: Tensor, foreground: tuple[int, ...]) -> Tensor:
    """PMSE of the boundary and foreground maps; the 3x3 mean runs over valid pixels inside the image."""
    places = valid_pixels(target)

    def maps(logits: Tensor) -> dict[tuple[int, int, int], tuple[Tensor, Tensor]]:
        prob = {place: softmax(list(logits[place[0], :, place[1], place[2]])) for place in places}
        out = {}
        for b, i, j in places:
            near = [p for p in places if p[0] == b and abs(p[1] - i) <= 1 and abs(p[2] - j) <= 1]
            edge = 0
            for k, p_k in enumerate(prob[b, i, j]):
                edge = edge + (p_k - sum(prob[p][k] for p in near) / len(near)).abs() / 2
            out[b, i, j] = (edge, sum(prob[b, i, j][k] for k in foreground))
        return out

    maps_s, maps_t = maps(student), maps(teacher)
    total = 0
    for place in places:
        for x_s, x_t in zip(maps_s[place], maps_t[place], strict=True):
            total = total + (x_s - x_t) ** 2 + ((1 - x_s) - (1 - x_t)) ** 2
    return total / len(places)


def by_class(target: Tensor) -> dict[int, list[tuple[int, int, int]]]:
    """Pixels of each class that is present, over the whole batch."""
    places: dict[int, list[tuple[int, int, int]]] = {}
    for b, i, j in valid_pixels(target):
        places.setdefault(int(target[b, i, j]), []).append((b, i, j))
    return places


def direction(vector: Tensor) -> Tensor:
    """The unit vector; 0, without a gradient, for the zero vector (a pixel whose every ReLU is shut)."""
    return vector / vector.square().sum().sqrt() if vector.any() else vector * 0


def centres(feat: Tensor, target: Tensor) -> dict[int, Tensor]:
    return {
        c: direction(sum(feat[b, :, i, j] for b, i, j in places) / len(places))
        for c, places in by_class(target).items()
    }


def info_nce(own: Tensor, all_: list[Tensor]) -> Tensor:
    return -(own.exp() / sum(value.exp() for value in all_)).log()


def proto(student: Tensor, teacher: Tensor, target: Tensor, tau: float, symmetric: bool = False) -> Tensor:
    mu_s, mu_t = centres(student, target), centres(teacher, target)
    total = 0
    for c in mu_s:
        row = info_nce(mu_s[c] @ mu_t[c] / tau, [mu_s[c] @ mu_t[k] / tau for k in mu_t])
        column = info_nce(mu_s[c] @ mu_t[c] / tau, [mu_s[k] @ mu_t[c] / tau for k in mu_s])
        total = total + ((row + column) / 2 if symmetric else row)
    return total / len(mu_s)


def spatial(student: Tensor, teacher: Tensor, target: Tensor, tau: float) -> Tensor:
    """With the explicit vectors, in the space of all pixels of the batch."""
    classes = sorted(by_class(target))

    def vectors(feat: Tensor) -> dict[int, Tensor]:
        return {c: direction((feat.mean(1) * (target == c)).flatten()) for c in classes}

    v_s, v_t = vectors(student), vectors(teacher)
    return sum(info_nce(v_s[c] @ v_t[c] / tau, [v_s[c] @ v_t[k] / tau for k in classes]) for c in classes) / len(
        classes
    )


def relation(student: Tensor, teacher: Tensor, target: Tensor, tau: float) -> Tensor:
    mu_s, mu_t = centres(student, target), centres(teacher, target)
    total = 0
    for c in mu_s:
        others = [k for k in mu_s if k != c]
        r_s = softmax([mu_s[c] @ mu_s[k] / tau for k in others])
        r_t = softmax([mu_t[c] @ mu_t[k] / tau for k in others])
        total = total - sum(t * s.log() for s, t in zip(r_s, r_t, strict=True))
    return total / len(mu_s)


def pixel_proto(student: Tensor, teacher: Tensor, target: Tensor, tau: float) -> Tensor:
    mu_t, places = centres(teacher, target), valid_pixels(target)
    total = 0
    for b, i, j in places:
        f = direction(student[b, :, i, j])
        total = total + info_nce(f @ mu_t[int(target[b, i, j])] / tau, [f @ mu / tau for mu in mu_t.values()])
    return total / len(places)


def pixel_pixel(student: Tensor, teacher: Tensor, target: Tensor, tau: float) -> Tensor:
    """Every pair: the mean over anchors of the mean over positives of InfoNCE against all keys."""
    places = valid_pixels(target)
    key = {p: direction(teacher[p[0], :, p[1], p[2]]) for p in places}
    total = 0
    for p in places:
        anchor = direction(student[p[0], :, p[1], p[2]])
        scores = {k: anchor @ key[k] / tau for k in places}
        positives = [k for k in places if target[k] == target[p]]
        total = total + sum(info_nce(scores[k], list(scores.values())) for k in positives) / len(positives)
    return total / len(places)


def pixel_queue(student: Tensor, queue: dict[int, list[Tensor]], target: Tensor, tau: float) -> Tensor:
    """`queue` holds the stored unit vectors of each class."""
    total, anchors = 0, 0
    for c, places in by_class(target).items():
        if not queue.get(c):
            continue
        negatives = [key for k, keys in queue.items() if k != c for key in keys]
        for b, i, j in places:
            anchor = direction(student[b, :, i, j])
            against = [anchor @ key / tau for key in negatives]
            losses = [info_nce(anchor @ key / tau, [anchor @ key / tau, *against]) for key in queue[c]]
            total, anchors = total + sum(losses) / len(losses), anchors + 1
    return total / anchors


def proto_at_equality(feat: Tensor, target: Tensor, tau: float) -> float:
    """mean log sum exp((cos - 1) / tau): the value of `proto` when both networks agree."""
    mu = list(centres(feat, target).values())
    return sum(math.log(sum(math.exp((float(a @ b) - 1) / tau) for b in mu)) for a in mu) / len(mu)
