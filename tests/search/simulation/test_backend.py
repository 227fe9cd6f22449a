"""Studies under the fake clock, against schedules worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.search.callbacks import StudyCallback
from kdsearch.search.controller import StudyController
from kdsearch.search.simulation.backend import SimulatorBackend
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord
from tests.search.conftest import SPACE, cost_of


class ByHand:
    """Trials `a`, `b`, ... in the order asked; each stopped after the epochs given for it. Keeps a log of the calls."""

    def __init__(self, space: SearchSpace, stops: Sequence[int]) -> None:
        self.space, self.stops = space, stops
        self.started: list[TrialRecord] = []
        self.log: list[str] = []

    def next_trial(self) -> TrialRecord | str:
        if len(self.started) == len(self.stops):
            return "done"
        record = TrialRecord("abcdef"[len(self.started)], "search", "RUNNING", self.space.default().trial, {}, {})
        self.started.append(record)
        self.log.append(f"+{record.id}")
        return record

    def on_report(self, trial_id: str, epoch: int, metrics: dict[str, float]) -> bool:
        record = next(r for r in self.started if r.id == trial_id)
        record.epoch, record.metrics = epoch, metrics
        self.log.append(f"{trial_id}{epoch}")
        return epoch < self.stops["abcdef".index(trial_id)]

    def on_trial_end(self, trial_id: str, failure: str | None) -> None:
        self.log.append(f"-{trial_id}")


class Steps:
    """mIoU is a tenth of the epoch; an epoch takes 2 s in trial `a` and 3 s in the others."""

    def curve(self, trial: TrialRecord) -> list[float]:
        return [0.1, 0.2, 0.3, 0.4]

    def seconds(self, trial: TrialRecord) -> float:
        return 2.0 if trial.id == "a" else 3.0


def test_events_come_in_the_order_of_the_clock(space: SearchSpace) -> None:
    # Two slots: a ends epochs at 2, 4, 6, 8; b at 3, and is stopped at 6; c starts then: 9, 12, 15, 18.
    study = ByHand(space, [4, 2, 4])
    completed = SimulatorBackend(Steps(), slots=2).run(study, epochs=100)  # type: ignore[arg-type]
    assert " ".join(study.log) == "+a +b a1 b1 a2 a3 b2 -b +c a4 -a c1 c2 c3 c4 -c"
    assert [(c.record.id, c.seconds, c.epochs) for c in completed] == [("a", 8.0, 6), ("c", 18.0, 10)]
    assert study.started[2].metrics["val/miou"] == 0.4


def test_the_budget_ends_a_study_with_trials_running(space: SearchSpace) -> None:
    study = ByHand(space, [4, 4, 4])
    completed = SimulatorBackend(Steps(), slots=2).run(study, epochs=7)  # type: ignore[arg-type]
    # At 6 s both end an epoch: a started first.
    assert " ".join(study.log) == "+a +b a1 b1 a2 a3 b2 a4 -a +c b3"
    assert [c.epochs for c in completed] == [6]


@pytest.mark.parametrize("stop", ["pareto", "none"])
def test_a_whole_study_is_simulated_with_its_own_controller(stop: str, tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(SPACE)
    space = load_space(tmp_path / "toy.yaml", overrides=[f"search.stop={stop}"])
    storage = StudyStorage.open(None, space, cost_of)
    rungs = RungState((2,), space.search.objectives, space.search.stop, 2)
    controller = StudyController(space, storage, rungs, {"gflops": 10.0}, None, False, StudyCallback())

    class Large:
        """Learning that depends on the student: the larger, the better."""

        def curve(self, trial: TrialRecord) -> list[float]:
            return [trial.cost["gflops"] / 10 * epoch / 4 + trial.config.train.lr for epoch in (1, 2, 3, 4)]

        def seconds(self, trial: TrialRecord) -> float:
            return trial.cost["gflops"]

    completed = SimulatorBackend(Large(), slots=3).run(controller, epochs=1000)
    searched = [r for r in storage.trials if r.state != "INFEASIBLE"]
    assert len(searched) == 8
    assert not list(storage.running())
    assert {c.record.id for c in completed} == {r.id for r in searched if r.state == "COMPLETE"}
    assert (len(completed) == 8) == (stop == "none")
    assert all(r.curve == {e: Large().curve(r)[e - 1] for e in range(1, r.epoch + 1)} for r in searched)
    assert [c.epochs for c in completed] == sorted(c.epochs for c in completed)
