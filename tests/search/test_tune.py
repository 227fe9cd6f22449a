"""The agenda behind Tune's interfaces, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdsearch.config.space.search_space import SearchSpace
from kdsearch.engine import tune
from kdsearch.engine.timeouts import Limits
from kdsearch.engine.tune import AgendaSearcher, Restarts, StudyBroken
from kdsearch.engine.worker_group import Job
from kdsearch.search.controller import Agenda
from kdsearch.search.stopping.rungs import Rungs
from kdsearch.search.storage.study_storage import Record, StudyRecord
from tests.search.conftest import cost_of


@pytest.fixture
def agenda(tmp_path: Path, space: SearchSpace) -> Iterator[Agenda]:
    record = StudyRecord(tmp_path / "study.journal", space, cost_of)
    rungs = Rungs((), space.search.objectives, "none", 2)
    yield Agenda(space, record, rungs, {"gflops": 10.0}, None, confirm=False, listeners=[])
    record.close()


def job_of(record: Record) -> Job:
    return Job(record.id, "{}", "", None, "", "")


def test_a_cluster_that_grows_is_used(agenda: Agenda) -> None:
    slots = 1
    searcher = AgendaSearcher(agenda, job_of, {}, lambda: slots)
    assert searcher.suggest("a")["job"].id == "t0000"
    assert searcher.suggest("b") is None
    slots = 2
    assert searcher.suggest("b") is not None
    slots = 1
    assert searcher.suggest("c") is None


def test_what_cannot_be_saved_ends_the_study_and_stays_running_on_record(agenda: Agenda) -> None:
    searcher = AgendaSearcher(agenda, job_of, {}, lambda: 1)
    searcher.suggest("a")
    with pytest.raises(StudyBroken) as caught:
        searcher.on_trial_complete("a", {"broken": "t0000.pt could not be written to /full"})
    assert isinstance(caught.value.error, OSError)
    assert "/full" in str(caught.value.error)
    assert [record.id for record in agenda.record.running()] == ["t0000"]


def test_a_trial_that_tune_says_nothing_of_is_not_waited_for_without_end(
    agenda: Agenda, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(tune.time, "monotonic", lambda: clock[0])
    searcher = AgendaSearcher(agenda, job_of, {}, lambda: 1)
    watch: Any = Restarts(agenda, searcher, Limits(900, 40))
    searcher.suggest("a")
    for clock[0] in (0.0, 500.0, 1500.0):
        watch.on_step_end(0, [])
    agenda.heard("t0000", 1, {"val/miou": 0.1})
    for clock[0] in (1600.0, 3000.0):
        watch.on_step_end(0, [])
    clock[0] = 4000.0
    with pytest.raises(StudyBroken) as caught:
        watch.on_step_end(0, [])
    assert isinstance(caught.value.error, TimeoutError)
    assert "nothing was heard of t0000" in str(caught.value.error)
