"""The controller behind Tune's interfaces, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdsearch.config.space.search_space import SearchSpace
from kdsearch.engine import tune
from kdsearch.engine.messages import NotSaved, Progress, TrialJob
from kdsearch.engine.timeouts import Timeouts
from kdsearch.engine.tune import ControllerSearcher, DriverError, WatchdogCallback
from kdsearch.search.callbacks import StudyCallback
from kdsearch.search.controller import StudyController
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord
from tests.search.conftest import cost_of


@pytest.fixture
def controller(tmp_path: Path, space: SearchSpace) -> Iterator[StudyController]:
    record = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
    rungs = RungState((), space.search.objectives, "none", 2)
    yield StudyController(space, record, rungs, {"gflops": 10.0}, None, confirm=False, callback=StudyCallback())
    record.close()


def job_of(record: TrialRecord) -> TrialJob:
    return TrialJob(record.id, "{}", "", None, "", "")


def test_a_cluster_that_grows_is_used(controller: StudyController) -> None:
    slots = 1
    searcher = ControllerSearcher(controller, job_of, {}, lambda: slots)
    assert searcher.suggest("a")["job"].id == "t0000"
    assert searcher.suggest("b") is None
    slots = 2
    assert searcher.suggest("b") is not None
    slots = 1
    assert searcher.suggest("c") is None


def test_a_trial_that_cannot_be_saved_ends_the_study_and_stays_running(controller: StudyController) -> None:
    searcher = ControllerSearcher(controller, job_of, {}, lambda: 1)
    searcher.suggest("a")
    with pytest.raises(DriverError) as caught:
        searcher.on_trial_complete("a", NotSaved("t0000.pt could not be written to /full").to_result())
    assert isinstance(caught.value.error, OSError)
    assert "/full" in str(caught.value.error)
    assert [record.id for record in controller.storage.running()] == ["t0000"]


def test_a_trial_without_reports_is_not_waited_for_without_end(
    controller: StudyController, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(tune.time, "monotonic", lambda: clock[0])
    searcher = ControllerSearcher(controller, job_of, {}, lambda: 1)
    watch: Any = WatchdogCallback(controller, searcher, Timeouts(900, 40))
    searcher.suggest("a")
    for clock[0] in (0.0, 500.0, 1500.0):
        watch.on_step_end(0, [])
    controller.on_report("t0000", 1, {"val/miou": 0.1})
    for clock[0] in (1600.0, 3000.0):
        watch.on_step_end(0, [])
    clock[0] = 4000.0
    with pytest.raises(DriverError) as caught:
        watch.on_step_end(0, [])
    assert isinstance(caught.value.error, TimeoutError)
    assert "no report of t0000" in str(caught.value.error)


def test_a_stopped_study_starts_no_trial_and_ends_none(controller: StudyController) -> None:
    stopped = False
    searcher = ControllerSearcher(controller, job_of, {}, lambda: 2, lambda: stopped)
    searcher.suggest("a")
    stopped = True
    assert searcher.suggest("b") == searcher.FINISHED
    searcher.on_trial_complete("a", Progress(1, {"val/miou": 0.1}).to_result())
    assert [trial.id for trial in controller.storage.running()] == ["t0000"]
