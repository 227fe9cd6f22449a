"""`summary.json`: one model writes and reads it, files of version 0.1 included."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from kdsearch.errors import UserError
from kdsearch.search.summary import FrontierPoint, StudySummary

OLD: dict[str, Any] = {
    "kdsearch": "0.1.0", "space": "clfd", "status": "done", "objectives": {"miou": "max", "gflops": "min"},
    "trials": {"COMPLETE": 9, "PRUNED": 2}, "hypervolume": 1.29, "stopping": None, "teacher_miou": 0.6,
    "reference": {"gflops": 4.0, "params_m": 40.0},
    "frontier": [
        {
            "trial": "t0001", "miou": 0.4, "gflops": 0.1, "params_m": 1, "seeds": 2, "miou_mean": 0.39,
            "miou_std": 0.01, "control_miou_mean": 0.35, "gain": 0.04, "gain_std": None, "gain_low": None,
            "gain_high": None, "p_frontier": None, "gain_of_class": {"road": 0.1}, "student": "/runs/x/students/t0001",
            "params": {"train.lr": 0.01},
        },
    ],
}  # fmt: skip
"""A file as version 0.1 wrote it: without `searched`, `asked`, `store`, `versions` and `latency`."""


def test_a_file_of_version_0_1_is_read(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(OLD))
    summary = StudySummary.read(tmp_path / "summary.json")
    assert (summary.kdsearch, summary.status, summary.main_cost, summary.best_miou) == ("0.1.0", "done", "gflops", 0.4)
    assert (summary.searched, summary.store, summary.latency) == (None, None, None)
    point = summary.point("t0001")
    assert point is not None
    assert (point.seeds, point.gain, point.gain_low, point.params) == (2, 0.04, None, {"train.lr": 0.01})
    assert summary.point("t0002") is None


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    point = FrontierPoint("t0001", 0.4, 0.1, 1.0, latency_ms=2.5, seeds=0, gain_of_class={"road": 0.1})
    summary = StudySummary(
        "clfd", kdsearch="0.2", objectives={"miou": "max", "latency_ms": "min"}, searched=3, asked=9, frontier=[point],
        latency={"target": "cpu", "students": [{"latency_ms": 2.5}]}, versions={"torch": "2"},
    )  # fmt: skip
    summary.write(tmp_path / "summary.json")
    assert StudySummary.read(tmp_path / "summary.json") == summary
    later = json.loads((tmp_path / "summary.json").read_text()) | {"a key of a later version": 1}
    assert StudySummary.from_dict(later) == summary


def test_json_holds_no_nan(tmp_path: Path) -> None:
    point = FrontierPoint("t0001", 0.4, 0.1, 1.0, miou_mean=math.nan, gain=math.nan)
    assert point.miou_mean is None
    summary = StudySummary("clfd", teacher_miou=math.nan, latency={"spearman": math.nan}, frontier=[point])
    summary.write(tmp_path / "summary.json")
    content = json.loads((tmp_path / "summary.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (content["teacher_miou"], content["latency"]["spearman"], content["frontier"][0]["gain"]) == (None,) * 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"space": None}, "space: it is missing"),
        ({"status": "paused"}, "status: 'paused' is none of"),
        ({"searched": "7"}, "searched: '7' is of the wrong type"),
        ({"hypervolume": True}, "hypervolume: True is of the wrong type"),
        ({"versions": []}, r"versions: \[\] is of the wrong type"),
        ({"frontier": None}, "frontier: it is missing"),
        ({"frontier": [7]}, "not a JSON object"),
        ({"frontier": [OLD["frontier"][0] | {"miou": "high"}]}, "miou: 'high' is not a number"),
        ({"frontier": [OLD["frontier"][0] | {"gain": []}]}, r"gain: \[\] is not a number"),
        ({"frontier": [OLD["frontier"][0] | {"trial": "../../etc"}]}, "'../../etc' is no trial's name"),
        ({"objectives": {"miou": "max", "latency_ms": "min"}}, "frontier: t0001 has no latency_ms"),
    ],
)  # fmt: skip
def test_values_that_no_study_writes_are_refused(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(OLD | change))
    with pytest.raises(
        UserError, match=rf"summary.json is no summary of a study \({reason}.*continue the study with resume=True"
    ):
        StudySummary.read(tmp_path / "summary.json")


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, '{"space": "cl'])
def test_a_damaged_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UserError, match=r"is no summary of a study \(it is not valid JSON\)"):
        StudySummary.read(tmp_path / "summary.json")


def test_a_folder_without_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run folder: it has no summary.json"):
        StudySummary.read(tmp_path / "summary.json")
    assert StudySummary.read_or_empty(tmp_path / "summary.json", "clfd") == StudySummary("clfd")


def test_a_point_is_checked_when_it_is_made() -> None:
    point = FrontierPoint("t0001", 0.4, 0.1, 1.0)
    with pytest.raises(ValueError, match="gflops: nan is not a number"):
        dataclasses.replace(point, gflops=math.nan)
