"""What pages, registry and export say of latency."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from kdsearch.errors import UserError
from kdsearch.report.pages import frontier_page, report_page
from kdsearch.report.results import read_results
from kdsearch.search.choice import choose
from kdsearch.search.latency.report import latency_report
from kdsearch.tracking.mlflow.registry import aliases
from tests.tracking.made_up import HOSTILE, MadeUp

ABOUT: dict[str, Any] = {
    "target": "cpu:4", "device": f"a processor {HOSTILE}", "torch": "9.9", "size": [32, 64], "spearman": 0.4,
    "kendall": 0.3,
    "students": [
        {"student": HOSTILE, "gflops": 0.9, "params_m": 1.0, "latency_ms": 3.25, "spread": 0.02},
        {"student": "b", "gflops": 0.1, "params_m": 2.0, "latency_ms": 7.5, "spread": 0.12},
        {"student": "c", "gflops": 0.5, "params_m": 2.0, "latency_ms": 9.5, "spread": 0.01},
    ],
}  # fmt: skip
FRONTIER = [
    {"trial": "t0", "miou": 0.4, "gflops": 5.0, "params_m": 1.0, "latency_ms": 2.0},
    {"trial": "t1", "miou": 0.6, "gflops": 4.0, "params_m": 1.0, "latency_ms": 3.0},
    {"trial": "t2", "miou": 0.7, "gflops": 1.0, "params_m": 1.0, "latency_ms": 20.0},
]


def test_a_report_says_what_was_measured() -> None:
    report = latency_report({"latency": ABOUT})
    assert report is not None
    assert report.spread == 0.12
    assert ", 4 threads: 3.25 to 9.5 ms for 3 students; rounds of one differ by up to 12%" in report.line()
    assert "0.40 (Spearman) and 0.30 (Kendall): FLOPs say little" in report.sentences()
    assert latency_report({}) is None


@pytest.mark.parametrize("change", [{"size": 3}, {"students": [{}]}, {"spearman": "x"}, {"students": None}])
def test_what_no_study_writes_is_one_sentence(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="no study writes"):
        latency_report({"latency": ABOUT | change})


def test_the_pages_have_it_and_escape_it(tmp_path: Path) -> None:
    made = MadeUp(tmp_path)
    made.search("done")
    made.record.close()
    results = read_results(made.run)
    assert "Latency and FLOPs" not in report_page(results, None, "")
    assert "latency_ms" not in frontier_page(results).partition("<script>")[0].partition('id="data"')[0]
    trials = {t.id: dataclasses.replace(t, latency_ms=10.0 + i) for i, t in enumerate(results.trials)}
    timed = dataclasses.replace(
        results,
        objectives={"miou": "max", "latency_ms": "min"},
        summary={**results.summary, "latency": ABOUT},
        trials=list(trials.values()),
        points=[dataclasses.replace(point, trial=trials[point.trial.id]) for point in results.points],
    )
    report, page = report_page(timed, None, ""), frontier_page(timed)
    assert "Latency and FLOPs" in report
    assert "latency of an image, ms" in report
    assert '<option value="latency_ms" selected>' in page
    for text in (report, page):
        assert HOSTILE not in text


def test_points_are_chosen_by_latency() -> None:
    assert choose(FRONTIER, "miou", "latency_ms<=5")[0]["trial"] == "t1"
    assert choose(FRONTIER, "knee", cost="latency_ms")[0]["trial"] == "t1"
    assert choose(FRONTIER, "knee")[0]["trial"] == "t2"
    with pytest.raises(UserError, match="The cheapest has 2 ms"):
        choose(FRONTIER, "miou", "latency_ms<=1")
    without = [{k: v for k, v in point.items() if k != "latency_ms"} for point in FRONTIER]
    with pytest.raises(UserError, match="measured no latency"):
        choose(without, "miou", "latency_ms<=5")


def test_the_registry_has_an_alias_for_each_latency() -> None:
    found = aliases(FRONTIER, "latency_ms")
    assert found["knee"] == "t1"
    assert {name: trial for name, trial in found.items() if name.startswith("us-")} == {
        "us-le-2000": "t0", "us-le-3000": "t1", "us-le-20000": "t2",
    }  # fmt: skip
