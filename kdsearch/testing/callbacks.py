"""Conformance suite of callbacks: the contract of `kdsearch.search.callbacks` as tests, on a study without training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest

from kdsearch.io.run_folder import RunFolder
from kdsearch.search.callbacks import CallbackList, Status, StudyCallback, StudyEnd, StudyInfo
from kdsearch.search.controller import StudyController
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord
from kdsearch.testing.toy_study import REFERENCE, cost_of, miou_of, toy_space

__all__ = ["CallbackConformance"]

Make = Callable[[StudyInfo], StudyCallback]


class CallbackConformance:
    """Inherit, with a fixture `make` that returns a function: it makes the callback for a study."""

    @pytest.fixture
    def make(self) -> Make:
        raise NotImplementedError

    @pytest.fixture
    def study(self, tmp_path: Path) -> StudyInfo:
        run = RunFolder.at(str(tmp_path / "runs"), "toy")
        run.create()
        return StudyInfo("toy", run.path, toy_space())

    def test_a_whole_study(self, make: Make, study: StudyInfo) -> None:
        """Every event in the documented order: teacher, search with restarts and failures, confirmation, end."""
        callback = make(study)
        drive(callback, study, teacher=True)
        callback.close()
        callback.close()

    def test_a_resumed_study(self, make: Make, study: StudyInfo) -> None:
        """A second driver: earlier trials are restored, and running ones start again."""
        first, second = make(study), make(study)
        drive(first, study, stop_after=5)
        first.close()
        drive(second, study)
        second.close()

    def test_after_an_exception_in_another_callback(self, make: Make, study: StudyInfo) -> None:
        callback = make(study)
        failing = Failing()
        drive(CallbackList([failing, callback]), study)
        assert failing.calls > 10
        callback.close()

    @pytest.mark.parametrize("status", get_args(Status))
    def test_a_study_that_ends_at_once(self, make: Make, study: StudyInfo, status: Status) -> None:
        """No trial was started, and the frontier is empty."""
        callback = make(study)
        callback.on_study_start(study)
        callback.on_frontier([], 0.0)
        callback.on_study_end(StudyEnd(status, "made to fail" if status == "failed" else ""))
        callback.close()

    def test_close_without_a_study(self, make: Make, study: StudyInfo) -> None:
        make(study).close()

    def test_records_are_left_unchanged(self, make: Make, study: StudyInfo) -> None:
        callback = make(study)
        drive(Checked(callback), study)
        callback.close()


def drive(callback: StudyCallback, study: StudyInfo, teacher: bool = False, stop_after: int | None = None) -> None:
    """Run a study with this callback, up to `stop_after` trials; the results are in the journal of its run folder."""
    space, search = study.space, study.space.search
    callback.on_study_start(study)
    callback.on_message("a line of text")
    for done in range(3):
        callback.on_progress("data toy", done, 2)
    run = RunFolder(study.path)
    storage = StudyStorage.open(run.journal, space, cost_of)
    rungs = RungState(search.rungs, search.objectives, search.stop, search.reduction, run.rungs)
    if storage.trials:
        callback.on_trials_restored(storage.trials)
    callback.on_slots(2)
    training = TrialRecord("teacher", "teacher", "RUNNING", space.default().trial, {}, {"gflops": 9.0, "params_m": 9.0})
    controller = StudyController(space, storage, rungs, REFERENCE, training if teacher else None, True, callback)
    started = 0
    while isinstance(trial := controller.next_trial(), TrialRecord):
        started += 1
        if started == stop_after:  # the driver is killed
            storage.close()
            return
        train(controller, trial, started)
    end = StudyEnd("done", "", controller.members(), controller.confirmed(), controller.hypervolume, ("a note",))
    callback.on_study_end(end)
    storage.close()


def train(controller: StudyController, trial: TrialRecord, number: int) -> None:
    """Train a trial without training; some restart, one fails, and one does not fit in memory."""
    if trial.stage == "search" and number in (3, 6):
        controller.on_trial_end(trial.id, "made to fail", infeasible=number == 6)
        return
    for epoch in range(trial.epoch + 1, trial.config.train.epochs + 1):
        if epoch == 2 and number % 4 == 0:
            controller.on_trial_restart(trial.id, "its workers were lost")
            assert controller.next_trial() is trial
        metrics = {
            "val/miou": miou_of(trial.config, epoch), "val/pixel_accuracy": 0.9, "val/iou/road": 0.8, "loss/task": 0.5,
            "loss/kd": 0.1, "time/train_s": 2.0, "time/val_s": 1.0,
        }  # fmt: skip
        if not controller.on_report(trial.id, epoch, metrics):
            break
    controller.on_trial_end(trial.id, None)


class Failing(StudyCallback):
    """Raises in every event of a trial."""

    def __init__(self) -> None:
        self.calls = 0

    def _fail(self) -> None:
        self.calls += 1
        raise RuntimeError("made to fail")

    def on_trial_start(self, trial: TrialRecord) -> None:
        self._fail()

    def on_trial_result(self, trial: TrialRecord) -> None:
        self._fail()

    def on_trial_end(self, trial: TrialRecord) -> None:
        self._fail()


class Checked(StudyCallback):
    """Delivers events to a callback, and checks that it leaves the records unchanged."""

    def __init__(self, callback: StudyCallback) -> None:
        self.callback = callback

    def _deliver(self, event: str, *arguments: Any) -> None:
        before = copy.deepcopy(arguments)
        getattr(self.callback, event)(*arguments)
        assert str(arguments) == str(before), f"{event} changed a record"

    def on_study_start(self, study: StudyInfo) -> None:
        self.callback.on_study_start(study)

    def on_trials_restored(self, trials: Sequence[TrialRecord]) -> None:
        self._deliver("on_trials_restored", trials)

    def on_trial_start(self, trial: TrialRecord) -> None:
        self._deliver("on_trial_start", trial)

    def on_trial_result(self, trial: TrialRecord) -> None:
        self._deliver("on_trial_result", trial)

    def on_trial_restart(self, trial: TrialRecord, reason: str) -> None:
        self._deliver("on_trial_restart", trial, reason)

    def on_trial_end(self, trial: TrialRecord) -> None:
        self._deliver("on_trial_end", trial)

    def on_frontier(self, members: Sequence[TrialRecord], hypervolume: float) -> None:
        self._deliver("on_frontier", members, hypervolume)

    def on_study_end(self, end: StudyEnd) -> None:
        self._deliver("on_study_end", end)
