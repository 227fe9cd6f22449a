"""The report on the latencies of a study, from the content of its summary."""

from __future__ import annotations

from typing import Any

import pytest

from kdsearch.errors import UserError
from kdsearch.search.latency.report import latency_report

ABOUT: dict[str, Any] = {
    "target": "cpu:4", "device": "a processor", "torch": "9.9", "size": [32, 64], "spearman": 0.4,
    "kendall": 0.3,
    "students": [
        {"student": "a", "gflops": 0.9, "params_m": 1.0, "latency_ms": 3.25, "spread": 0.02},
        {"student": "b", "gflops": 0.1, "params_m": 2.0, "latency_ms": 7.5, "spread": 0.12},
        {"student": "c", "gflops": 0.5, "params_m": 2.0, "latency_ms": 9.5, "spread": 0.01},
    ],
}  # fmt: skip


def test_a_report_describes_the_measurement() -> None:
    report = latency_report(ABOUT)
    assert report is not None
    assert report.spread == 0.12
    assert ", 4 threads: 3.25 to 9.5 ms for 3 students; rounds of one differ by up to 12%" in report.line()
    assert "0.40 (Spearman) and 0.30 (Kendall): FLOPs are a poor proxy" in report.sentences()
    assert latency_report(None) is None


@pytest.mark.parametrize("change", [{"size": 3}, {"students": [{}]}, {"spearman": "x"}, {"students": None}])
def test_values_of_another_program_are_one_error(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="no study writes"):
        latency_report(ABOUT | change)
