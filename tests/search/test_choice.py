"""The choice of one point of a frontier, by mIoU or at the knee, within a budget."""

from __future__ import annotations

import dataclasses

import pytest

from kdsearch.errors import UserError
from kdsearch.search.choice import choose
from kdsearch.search.summary import FrontierPoint

FRONTIER = [
    FrontierPoint("t0", miou=0.4, gflops=5.0, params_m=1.0, latency_ms=2.0),
    FrontierPoint("t1", miou=0.6, gflops=4.0, params_m=1.0, latency_ms=3.0),
    FrontierPoint("t2", miou=0.7, gflops=1.0, params_m=1.0, latency_ms=20.0),
]


def test_points_are_chosen_by_latency() -> None:
    assert choose(FRONTIER, "miou", "latency_ms<=5")[0].trial == "t1"
    assert choose(FRONTIER, "knee", cost="latency_ms")[0].trial == "t1"
    assert choose(FRONTIER, "knee")[0].trial == "t2"
    with pytest.raises(UserError, match="The cheapest has 2 ms"):
        choose(FRONTIER, "miou", "latency_ms<=1")
    without = [dataclasses.replace(point, latency_ms=None) for point in FRONTIER]
    with pytest.raises(UserError, match="measured no latency"):
        choose(without, "miou", "latency_ms<=5")


def test_a_budget_is_a_metric_and_a_number() -> None:
    assert choose(FRONTIER, "miou", "miou < 0.7")[0].trial == "t1"
    with pytest.raises(UserError, match="expected METRIC<=NUMBER"):
        choose(FRONTIER, "miou", "gflops=5")
    with pytest.raises(UserError, match=r"unknown metric 'gflop'. Did you mean 'gflops'"):
        choose(FRONTIER, "miou", "gflop<=5")
    with pytest.raises(UserError, match="The frontier is empty"):
        choose([], "miou")


def test_means_decide_only_where_every_point_was_repeated() -> None:
    means = [dataclasses.replace(point, miou_mean=mean) for point, mean in zip(FRONTIER, (0.4, 0.65, 0.5), strict=True)]
    point, how = choose(means, "miou")
    assert point.trial == "t1"
    assert how == "mean mIoU of repeats with other seeds"
    point, how = choose([*means[:2], FRONTIER[2]], "miou")
    assert point.trial == "t2"
    assert "biased upwards" in how
