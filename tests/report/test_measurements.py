"""The measurements of a run's students: counted, shown in the report, read from a file of unknown origin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdsearch.report import measurements
from kdsearch.report.pages import report_page
from kdsearch.report.results import read_results
from tests.tracking.made_up import MadeUp


def result(split: str, miou: float, digest: str = "0123abcd") -> dict[str, Any]:
    return {
        "dataset": "scenes", "split": split, "images": 5, "protocol": {"digest": digest},
        "metrics": {"miou": miou, "boundary_iou": miou / 2},
    }  # fmt: skip


def test_the_last_result_of_each_is_read_with_the_number_of_looks(tmp_path: Path) -> None:
    for each in (result("test", 0.5), result("val", 0.6), result("test", 0.52), result("test", 0.4, "ffff0000")):
        measurements.append(tmp_path, "t0001", each)
    found = measurements.read(tmp_path)
    assert [(each.split, each.protocol, each.miou, each.times) for each in found] == [
        ("test", "0123abcd", 0.52, 2), ("val", "0123abcd", 0.6, 1), ("test", "ffff0000", 0.4, 1),
    ]  # fmt: skip
    assert found[0].boundary_iou == 0.26


def test_damaged_lines_and_a_missing_file_are_no_error(tmp_path: Path) -> None:
    assert measurements.read(tmp_path) == []
    measurements.append(tmp_path, "t0001", result("test", 0.5))
    with (tmp_path / measurements.FILE).open("a") as file:
        file.write('[1]\n{"student": 1}\n{"cut')
    assert [each.miou for each in measurements.read(tmp_path)] == [0.5]
    (tmp_path / measurements.FILE).write_bytes(b"\xff\xfe\x00")
    assert measurements.read(tmp_path) == []


def test_the_report_has_them_and_escapes_them(tmp_path: Path) -> None:
    study = MadeUp(tmp_path)
    assert "Measured on files" not in report_page(read_results(study.run), None, "")
    measurements.append(study.run.path, "t0001", result("test", 0.4321))
    measurements.append(study.run.path, "t0001", result("<script>alert(1)</script>", 0.1))
    page = report_page(read_results(study.run), None, "")
    assert "Measured on files" in page
    assert "0.4321" in page
    assert "<script>alert(1)" not in page
    first = (study.run.path / measurements.FILE).read_text().splitlines()[0]
    assert json.loads(first)["student"] == "t0001"
