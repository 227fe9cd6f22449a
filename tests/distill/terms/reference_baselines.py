"""The baseline terms' formulas as plain loops over pixels, channels and classes, in fp64."""

from __future__ import annotations

import math
import re

from torch import Tensor

from .reference import direction, softmax, valid_pixels

Place = tuple[int, int, int]


def windows(length: int, node: str) -> list[range]:
    """What each node pools along one side of `length` pixels."""
    if node == "none":
        return [range(i, i + 1) for i in range(length)]
    size = length // 2 if node == "half" else int(re.sub(r"\D", "", node))
    if node == "half" or node.startswith("stride"):
        return [range(start, min(start + size, length)) for start in range(0, length, size)]
    return [range(i * length // size, math.ceil((i + 1) * length / size)) for i in range(size)]


def pair_similarity(student: Tensor, teacher: Tensor, node: str) -> Tensor:
    """Every pair of nodes of every image."""

    def nodes(feat: Tensor, b: int) -> list[Tensor]:
        height, width = feat.shape[-2:]
        return [
            direction(feat[b][:, list(rows)][:, :, list(columns)].amax((1, 2)))
            for rows in windows(height, node)
            for columns in windows(width, node)
        ]

    total = 0
    for b in range(len(student)):
        nodes_s, nodes_t = nodes(student, b), nodes(teacher, b)
        squares = [
            (nodes_s[i] @ nodes_s[j] - nodes_t[i] @ nodes_t[j]) ** 2
            for i in range(len(nodes_s))
            for j in range(len(nodes_s))
        ]
        total = total + sum(squares) / len(squares)
    return total / len(student)


def ifvd(student: Tensor, teacher: Tensor, target: Tensor, count_ignored: bool) -> Tensor:
    """Class by class of each image."""

    def cosines(feat: Tensor) -> dict[Place, Tensor]:
        out = {}
        for b, c in {(b, int(target[b, i, j])) for b, i, j in places}:
            own = [place for place in places if place[0] == b and target[place] == c]
            centre = sum(feat[p[0], :, p[1], p[2]] for p in own) / len(own)
            for p in own:
                out[p] = direction(feat[p[0], :, p[1], p[2]]) @ direction(centre)
        return out

    places = valid_pixels(target)
    cosines_s, cosines_t = cosines(student), cosines(teacher)
    squares = sum((cosines_s[place] - cosines_t[place]) ** 2 for place in places)
    return squares / (target.numel() if count_ignored else len(places))


def cwd(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """Image by image, channel by channel."""
    total = 0
    batch, channels = student.shape[:2]
    for b in range(batch):
        for c in range(channels):
            q_s = softmax([x / tau for x in student[b, c].flatten()])
            q_t = softmax([x / tau for x in teacher[b, c].flatten()])
            total = total + sum(t * (t / s).log() for s, t in zip(q_s, q_t, strict=True))
    return total * tau**2 / (batch * channels)


def pearson(a: list[Tensor], b: list[Tensor]) -> Tensor:
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    product = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return product / (sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)).sqrt()


def dist(
    student: Tensor, teacher: Tensor, places: list[Place], beta: float, gamma: float, temperature: float
) -> Tensor:
    """Correlations of the pixels `places`, then of the classes over them."""
    rows_s, rows_t = (
        [softmax([z / temperature for z in logits[b, :, i, j]]) for b, i, j in places] for logits in (student, teacher)
    )
    between = sum(pearson(s, t) for s, t in zip(rows_s, rows_t, strict=True)) / len(places)
    columns = list(zip(zip(*rows_s, strict=True), zip(*rows_t, strict=True), strict=True))
    within = sum(pearson(list(s), list(t)) for s, t in columns) / len(columns)
    return beta * (1 - between) + gamma * (1 - within)


def at(student: Tensor, teacher: Tensor) -> Tensor:
    total = 0
    batch, _, height, width = student.shape
    for b in range(batch):
        maps = []
        for feat in (student, teacher):
            energy = [feat[b, :, i, j].square().sum() / feat.shape[1] for i in range(height) for j in range(width)]
            norm = sum(e**2 for e in energy).sqrt()
            maps.append([e / norm for e in energy])
        total = total + sum((s - t) ** 2 for s, t in zip(*maps, strict=True))
    return total / (batch * height * width)


def fitnet(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """`weight` is the 1x1 convolution, `[C_T, C_S]`."""
    batch, channels, height, width = teacher.shape
    total = 0
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                total = total + (weight @ student[b, :, i, j] - teacher[b, :, i, j]).square().sum()
    return total / (batch * channels * height * width)
