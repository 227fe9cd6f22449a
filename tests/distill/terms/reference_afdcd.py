"""Af-DCD's and MGD's formulas as plain loops, in fp64. Slow and obvious: what the terms must equal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from torch import Tensor

Vector = list[Tensor]


def l1(u: Vector, v: Vector) -> Tensor:
    return -sum((a - b).abs() for a, b in zip(u, v, strict=True))


def cosine(u: Vector, v: Vector) -> Tensor:
    norm_u, norm_v = sum(a * a for a in u).sqrt(), sum(b * b for b in v).sqrt()
    return sum(a * b for a, b in zip(u, v, strict=True)) / (norm_u * norm_v)


def neighbours(
    b: int, y: int, x: int, k: int, groups: int, patch: int, exclude_same_group: bool
) -> Iterator[tuple[int, int, int]]:
    """Row, column and group of every negative of the vector of group `k` at a pixel."""
    corner_y, corner_x = y - y % patch, x - x % patch
    for other_y in range(corner_y, corner_y + patch):
        for other_x in range(corner_x, corner_x + patch):
            for other_k in range(groups):
                itself = (other_y, other_x, other_k) == (y, x, k)
                if not itself and not (exclude_same_group and other_k == k):
                    yield other_y, other_x, other_k


def contrast(
    guess: Tensor,
    teacher: Tensor,
    groups: int,
    patch: int,
    tau: float,
    similarity: Callable[[Vector, Vector], Tensor] = l1,
    exclude_same_group: bool = True,
) -> Tensor:
    """Mean over images, rows, columns and groups of InfoNCE inside a patch; what fills no patch is left out."""
    batch, channels, height, width = guess.shape
    size = channels // groups

    def vector(maps: Tensor, b: int, y: int, x: int, k: int) -> Vector:
        return list(maps[b, k * size : (k + 1) * size, y, x])

    total, count = 0, 0
    for b in range(batch):
        for y in range(height - height % patch):
            for x in range(width - width % patch):
                for k in range(groups):
                    u = vector(guess, b, y, x, k)
                    positive = similarity(u, vector(teacher, b, y, x, k)) / tau
                    ratio = 1
                    for place in neighbours(b, y, x, k, groups, patch, exclude_same_group):
                        ratio = ratio + (similarity(u, vector(teacher, b, *place)) / tau - positive).exp()
                    total, count = total + ratio.log(), count + 1
    return total / count


def squared_error(guess: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all elements."""
    total = 0
    for a, b in zip(guess.flatten(), teacher.flatten(), strict=True):
        total = total + (a - b) ** 2
    return total / guess.numel()


def pooled(maps: Tensor, size: int) -> Tensor:
    """The greatest number of each window of `size` x `size`; what fills no window is left out."""
    height, width = maps.shape[2] // size, maps.shape[3] // size
    out = maps.new_zeros(*maps.shape[:2], height, width)
    for y in range(height):
        for x in range(width):
            window = maps[:, :, y * size : (y + 1) * size, x * size : (x + 1) * size]
            out[:, :, y, x] = window.flatten(2).max(2).values
    return out


def conv(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution of odd size with zeros around the map, pixel by pixel."""
    batch, _, height, width = maps.shape
    reach = weight.shape[2] // 2
    out = maps.new_zeros(batch, len(weight), height, width)
    for y in range(height):
        for x in range(width):
            value = bias
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        value = value + maps[:, :, y + dy, x + dx] @ weight[:, :, reach + dy, reach + dx].T
            out[:, :, y, x] = value
    return out


def uniform_contrast(groups: int, patch: int, exclude_same_group: bool = True) -> float:
    """What the contrast is when all similarities are equal."""
    return math.log(1 + len(list(neighbours(0, 0, 0, 0, groups, patch, exclude_same_group))))
