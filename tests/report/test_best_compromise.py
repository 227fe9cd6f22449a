"""The best compromise of the report, `export --best knee`, the library and the registry are one student."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kdsearch.api.study import Study
from kdsearch.export.source import from_run_folder
from kdsearch.report import sentences
from kdsearch.report.results import read_results
from kdsearch.search.choice import STUDENT_FILES
from kdsearch.search.confirm import repeats
from kdsearch.search.summary import FrontierPoint, StudySummary
from kdsearch.tracking.mlflow.model_registry import aliases, register
from tests.tracking.made_up import MadeUp

POINTS = (
    FrontierPoint("t0001", miou=0.30, gflops=0.1, params_m=1.0),
    FrontierPoint("t0002", miou=0.55, gflops=0.5, params_m=1.0),
    FrontierPoint("t0003", miou=0.60, gflops=1.0, params_m=1.0),
)


@pytest.fixture
def study(tmp_path: Path) -> MadeUp:
    """All members repeated, with means that turn their order: the knee of the search is not that of the means."""
    study = MadeUp(tmp_path)
    study.search()
    assert len(study.members) == 3
    for member, miou in zip(study.members, (0.50, 0.10, 0.51), strict=True):
        for repeat, _ in repeats(member.config, study.space.confirm):
            study.end(study.record.add("confirm", repeat, {"of": member.id}), miou)
        student = study.run.student(member.id)
        student.mkdir()
        for name in STUDENT_FILES:
            (student / name).write_text("")
    study.tables.write("done")
    study.close()
    return study


def test_the_report_names_the_student_that_export_and_the_registry_choose(study: MadeUp) -> None:
    summary = StudySummary.read(study.run.summary)
    in_the_search = [dataclasses.replace(point, miou_mean=None) for point in summary.frontier]
    exported = from_run_folder(study.run.path, "knee", None).point.trial
    assert exported != aliases(in_the_search)["knee"], "the means decide"
    results = read_results(study.run)
    knee = results.knee()
    assert knee is not None
    assert knee.trial.id == exported == aliases(summary.frontier)["knee"]
    assert any(f"The best compromise is {exported}," in sentence for sentence in sentences.summary(results))
    asked: list[str] = []
    api = Study(study.run)
    api.trial = lambda name: cast(Any, SimpleNamespace(student=lambda: asked.append(name)))  # type: ignore[method-assign]
    api.student("knee")
    assert asked == [exported]


class Registry:
    """Notes the aliases."""

    def __init__(self) -> None:
        self.aliases: dict[str, str] = {}

    def get_registered_model(self, name: str) -> Any:
        return SimpleNamespace(aliases={"knee": "1"})

    def search_model_versions(self, query: str) -> list[Any]:
        return []

    def create_model_version(self, name: str, source: str, run_id: str, tags: dict[str, str]) -> Any:
        return SimpleNamespace(version=run_id)

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self.aliases[alias] = version

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        assert alias == "knee"


def test_an_alias_never_moves_to_another_student_because_one_has_no_run() -> None:
    """MLflow refused its run, or warm start brought it."""
    chosen = aliases(POINTS)
    assert chosen["knee"] == "t0002"
    runs = {point.trial: point.trial for point in POINTS if point.trial != "t0002"}
    registry = Registry()
    register(cast(Any, registry), "study", POINTS, runs)
    assert registry.aliases == {alias: trial for alias, trial in chosen.items() if trial in runs}
    assert "knee" not in registry.aliases
