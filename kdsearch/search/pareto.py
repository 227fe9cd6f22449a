"""Pareto dominance under several objectives. All functions take costs: smaller is better in every column.

A point with a NaN has no place in the order: it is on no frontier, and its rank is behind all others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Costs = NDArray[np.float64]


def costs(rows: Sequence[Mapping[str, float]], objectives: Mapping[Any, str]) -> Costs:
    """Objective values of `rows` as an array `[n, m]` of costs; those to maximise are negated."""
    signs = [-1.0 if direction == "max" else 1.0 for direction in objectives.values()]
    table = [[sign * row[name] for sign, name in zip(signs, objectives, strict=True)] for row in rows]
    return np.array(table, dtype=np.float64).reshape(len(rows), len(objectives))


def non_dominated(costs_nm: Costs) -> NDArray[np.bool_]:
    """Mask `[n]` of points that no other point dominates. Of equal points the first one is kept."""
    n, objectives = costs_nm.shape
    known_n = _comparable(costs_nm)
    if not known_n.all():
        keep = np.zeros(n, dtype=bool)
        keep[known_n] = non_dominated(costs_nm[known_n])
        return keep
    if objectives <= 2:
        first: NDArray[np.bool_] = ranks(costs_nm) == 0
        return first
    keep = np.ones(n, dtype=bool)
    for i in range(n):
        no_worse = (costs_nm <= costs_nm[i]).all(axis=1)
        better = (costs_nm < costs_nm[i]).any(axis=1)
        equal_before = no_worse & ~better & (np.arange(n) < i)
        keep[i] = not (no_worse & better).any() and not equal_before.any()
    return keep


def ranks(costs_nm: Costs) -> NDArray[np.int64]:
    """Non-dominated rank `[n]` of each point: 0 for the frontier, 1 for the frontier of the rest, and so on.

    Equal points have increasing ranks, in their order.
    """
    rank_n = np.full(len(costs_nm), -1, dtype=np.int64)
    known_n = _comparable(costs_nm)
    if not known_n.all():
        rank_n[known_n] = ranks(costs_nm[known_n])
        rank_n[~known_n] = len(costs_nm) + np.arange(np.count_nonzero(~known_n))
        return rank_n
    if costs_nm.shape[1] <= 2:
        # In the order of the first objective, a front dominates a point exactly if the front's least second objective
        # so far is no greater than its own. Later fronts have greater ones, hence n log n.
        least: list[float] = []
        for i in np.lexsort((costs_nm[:, -1], costs_nm[:, 0])):
            second = float(costs_nm[i, -1])
            rank_n[i] = bisect_right(least, second)
            least[rank_n[i] : rank_n[i] + 1] = [second]
        return rank_n
    rank = 0
    while (left := np.flatnonzero(rank_n < 0)).size:
        rank_n[left[non_dominated(costs_nm[left])]] = rank
        rank += 1
    return rank_n


def _comparable(costs_nm: Costs) -> NDArray[np.bool_]:
    return np.logical_not(np.isnan(costs_nm).any(axis=1))


def spread_order(costs_nm: Costs) -> list[int]:
    """Epsilon-net order of points of one rank: first the best in the first objective, then always the point farthest
    from those already taken, with objectives scaled to [0, 1] (Salinas et al., "A multi-objective perspective", 2021).
    """
    if len(costs_nm) == 0:
        return []
    low, high = costs_nm.min(axis=0), costs_nm.max(axis=0)
    scaled = (costs_nm - low) / np.where(high > low, high - low, 1.0)
    order = [int(np.argmin(scaled[:, 0]))]
    distance = np.linalg.norm(scaled - scaled[order[0]], axis=1)
    while len(order) < len(scaled):
        distance[order] = -1.0
        order.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[order[-1]], axis=1))
    return order


def hypervolume(costs_nm: Costs, reference_m: Costs) -> float:
    """Exact volume that the points dominate within the reference point, for any number of objectives."""
    inside = costs_nm[(costs_nm < reference_m).all(axis=1)]
    if len(inside) == 0:
        return 0.0
    front = inside[non_dominated(inside)]
    if costs_nm.shape[1] == 1:
        return float(reference_m[0] - front.min())
    # Slices along the last objective: between two neighbouring levels, the points up to there span one volume.
    front = front[np.argsort(front[:, -1], kind="stable")]
    levels = np.append(front[:, -1], reference_m[-1])
    slices = (hypervolume(front[: i + 1, :-1], reference_m[:-1]) for i in range(len(front)))
    return float(sum(volume * (levels[i + 1] - levels[i]) for i, volume in enumerate(slices)))


def knee(costs_nm: Costs) -> int:
    """Index of the point nearest to the best corner, with objectives scaled to [0, 1]."""
    low, high = costs_nm.min(axis=0), costs_nm.max(axis=0)
    scaled = (costs_nm - low) / np.where(high > low, high - low, 1.0)
    return int(np.argmin(np.linalg.norm(scaled, axis=1)))
