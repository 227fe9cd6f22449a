from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kdsearch.search.pareto import costs, hypervolume, knee, non_dominated, ranks, spread_order

points = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(0, 6).map(float))


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


@given(points)
def test_non_dominated_equals_the_definition(costs_nm: np.ndarray) -> None:
    mask = non_dominated(costs_nm)
    for i, point in enumerate(costs_nm):
        beaten = any(dominates(other, point) for other in costs_nm)
        repeated = any((other == point).all() for other in costs_nm[:i])
        assert mask[i] == (not beaten and not repeated)


@given(points)
def test_each_rank_is_the_frontier_of_what_is_left(costs_nm: np.ndarray) -> None:
    rank_n = ranks(costs_nm)
    for rank in range(rank_n.max() + 1):
        left = rank_n >= rank
        assert (non_dominated(costs_nm[left]) == (rank_n[left] == rank)).all()


@given(points)
def test_hypervolume_equals_counted_cells(costs_nm: np.ndarray) -> None:
    # With integer coordinates the volume is the number of unit cells that some point dominates.
    reference = np.array([7.0, 7.0])
    cells = [
        (x, y)
        for x in range(7)
        for y in range(7)
        if any(p[0] <= x and p[1] <= y for p in costs_nm)
    ]  # fmt: skip
    assert hypervolume(costs_nm, reference) == pytest.approx(len(cells))


def test_hypervolume_in_three_dimensions() -> None:
    costs_nm = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    # Boxes 2x1x1 and 1x2x1, which share 1x1x1.
    assert hypervolume(costs_nm, np.array([2.0, 2.0, 2.0])) == pytest.approx(3.0)


def test_points_beyond_the_reference_count_nothing() -> None:
    assert hypervolume(np.array([[3.0, 0.0]]), np.array([2.0, 2.0])) == 0.0
    assert hypervolume(np.zeros((0, 2)), np.array([2.0, 2.0])) == 0.0


@given(points)
def test_flipping_an_objective_and_its_direction_changes_nothing(values_nm: np.ndarray) -> None:
    rows = [{"a": a, "b": b} for a, b in values_nm]
    flipped = [{"a": -a, "b": b} for a, b in values_nm]
    one = non_dominated(costs(rows, {"a": "max", "b": "min"}))
    other = non_dominated(costs(flipped, {"a": "min", "b": "min"}))
    assert (one == other).all()


@given(points)
def test_spread_order_is_a_permutation_that_starts_at_the_best_first_objective(costs_nm: np.ndarray) -> None:
    order = spread_order(costs_nm)
    assert sorted(order) == list(range(len(costs_nm)))
    assert costs_nm[order[0], 0] == costs_nm[:, 0].min()


def test_spread_order_takes_the_far_end_second() -> None:
    assert spread_order(np.array([[0.0, 10.0], [1.0, 9.0], [9.0, 0.0]]))[:2] == [0, 2]


def test_knee_is_the_bend() -> None:
    assert knee(np.array([[0.0, 10.0], [1.0, 1.0], [10.0, 0.0]])) == 1


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_a_point_with_a_nan_is_on_no_frontier_and_behind_all_others(objectives: int) -> None:
    points = np.arange(4.0)[:, None].repeat(objectives, 1)
    points[0, -1] = points[2, 0] = np.nan
    assert non_dominated(points).tolist() == [False, True, False, False]
    assert ranks(points)[[1, 3]].tolist() == [0, 1]
    assert ranks(points)[[0, 2]].min() > 1
    assert hypervolume(points, np.full(objectives, 5.0)) == 4.0**objectives
