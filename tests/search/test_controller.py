"""The order of trials in a study and the events of its callbacks, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.search.callbacks import StudyCallback
from kdsearch.search.controller import StudyController
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.reader import read_history
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord
from tests.search.conftest import SPACE, cost_of


class Events(StudyCallback):
    """Records events by name."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def on_trial_start(self, trial: TrialRecord) -> None:
        self.events.append(("start", trial.id))

    def on_trial_result(self, trial: TrialRecord) -> None:
        self.events.append(("result", (trial.id, trial.epoch)))

    def on_trial_restart(self, trial: TrialRecord, reason: str) -> None:
        self.events.append(("restart", (trial.id, reason)))

    def on_trial_end(self, trial: TrialRecord) -> None:
        self.events.append(("end", (trial.id, trial.state)))

    def on_frontier(self, members: Sequence[TrialRecord], hypervolume: float) -> None:
        self.events.append(("frontier", [trial.id for trial in members]))

    def of(self, kind: str) -> list[Any]:
        return [value for event, value in self.events if event == kind]


MakeController = Callable[..., tuple[StudyController, Events]]


@pytest.fixture
def controller(tmp_path: Path, space: SearchSpace) -> MakeController:
    def make(space: SearchSpace = space, teacher: TrialRecord | None = None) -> tuple[StudyController, Events]:
        storage = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
        rungs = RungState(space.search.rungs, space.search.objectives, space.search.stop, space.search.reduction)
        events = Events()
        reference = {"gflops": 10.0, "params_m": 10.0}
        return StudyController(space, storage, rungs, reference, teacher, confirm=True, callback=events), events

    return make


def train(controller: StudyController, record: TrialRecord, miou: float = 0.5) -> None:
    """Train a record as workers would, until it is stopped or at its end."""
    for epoch in range(record.epoch + 1, record.config.train.epochs + 1):
        if not controller.on_report(record.id, epoch, {"val/miou": miou, "time/train_s": 1.0, "time/val_s": 0.5}):
            break
    controller.on_trial_end(record.id, None)


def next_record(controller: StudyController) -> TrialRecord:
    record = controller.next_trial()
    assert isinstance(record, TrialRecord)
    return record


def test_the_teacher_comes_first_and_alone(controller: MakeController, space: SearchSpace) -> None:
    teacher = TrialRecord("teacher", "teacher", "RUNNING", space.default().trial, {}, {"gflops": 10.0})
    study, events = controller(teacher=teacher)
    assert study.next_trial() is teacher
    assert study.next_trial() == "wait"
    train(study, teacher)
    assert events.of("end") == [("teacher", "COMPLETE")]
    assert next_record(study).id == "t0000"
    assert all(record.id != "teacher" for record in study.storage.trials)


def test_a_teacher_that_fails_ends_the_study(controller: MakeController, space: SearchSpace) -> None:
    teacher = TrialRecord("teacher", "teacher", "RUNNING", space.default().trial, {}, {"gflops": 10.0})
    study, _ = controller(teacher=teacher)
    study.next_trial()
    study.on_trial_end("teacher", "loss/task is not finite")
    assert study.next_trial() == "done"
    assert study.teacher is not None
    assert study.teacher.reason == "loss/task is not finite"


def test_a_search_stops_at_rungs_and_keeps_the_frontier(controller: MakeController) -> None:
    study, events = controller()
    mious = iter([0.5, 0.4, 0.6, 0.3, 0.55, 0.2, 0.1, 0.7])
    while (record := study.next_trial()) != "done":
        assert isinstance(record, TrialRecord)
        train(study, record, next(mious))
    searched = [r for r in study.storage.trials if r.state != "INFEASIBLE"]
    assert len(searched) == 8
    for record in searched:
        assert record.epoch == (4 if record.state == "COMPLETE" else 2)
        assert record.seconds == 1.5 * record.epoch
    assert {record.state for record in searched} == {"COMPLETE", "PRUNED"}
    for member in study.members():
        for other in study.storage.complete("search"):
            beaten = other.miou >= member.miou and other.cost["gflops"] <= member.cost["gflops"]
            better = other.miou > member.miou or other.cost["gflops"] < member.cost["gflops"]
            assert not (beaten and better)
    assert events.of("frontier")[-1] == [member.id for member in study.members()]
    best = {member.cost["gflops"]: member.miou for member in study.members()}
    volume, reached = 0.0, 0.0
    for gflops, miou in sorted(best.items()):
        volume += (miou - reached) * (10.0 - gflops)
        reached = miou
    assert study.hypervolume == pytest.approx(volume)


def test_a_failure_is_stored_with_its_reason_and_the_search_continues(controller: MakeController) -> None:
    study, events = controller()
    first, second = next_record(study), next_record(study)
    study.on_trial_restart(first.id, "the workers died")
    assert next_record(study) is first
    study.on_trial_end(first.id, "its workers died")
    study.on_trial_end(second.id, "out of device memory at batch size 8", infeasible=True)
    assert events.of("restart") == [(first.id, "the workers died")]
    assert (study.storage.get(first.id).state, study.storage.get(first.id).reason) == ("FAIL", "its workers died")
    assert study.storage.get(second.id).state == "INFEASIBLE"
    assert study.storage._search.trials[int(second.id[1:])].constraints["memory"] == 1.0
    assert next_record(study).id not in (first.id, second.id)


def test_a_trial_that_lost_its_workers_is_handed_out_again_before_any_other(controller: MakeController) -> None:
    study, events = controller()
    first, second = next_record(study), next_record(study)
    study.on_trial_restart(first.id, "the workers died")
    study.on_trial_wait(second.id)
    assert [next_record(study), next_record(study)] == [second, first]
    assert events.of("start") == [first.id, second.id]
    assert events.of("restart") == [(first.id, "the workers died")]


def test_a_postponed_trial_comes_after_the_search_and_before_its_confirmation(
    controller: MakeController, tmp_path: Path
) -> None:
    (tmp_path / "confirm.yaml").write_text(SPACE.replace("trials: 8", "trials: 2") + "confirm: {seeds: 1}\n")
    study, _ = controller(space=load_space(tmp_path / "confirm.yaml"))
    first = next_record(study)
    study.on_trial_restart(first.id, "out of device memory", later=True)
    second = next_record(study)
    assert second is not first
    assert next_record(study) is first
    train(study, second)
    assert study.next_trial() == "wait"
    train(study, first)
    assert next_record(study).stage == "confirm"


def test_while_a_trial_is_in_flight_the_study_is_not_done(controller: MakeController, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(SPACE.replace("trials: 8", "trials: 1"))
    study, _ = controller(space=load_space(tmp_path / "one.yaml"))
    only = next_record(study)
    assert study.next_trial() == "wait"
    study.on_trial_restart(only.id, "the workers died")
    assert next_record(study) is only
    train(study, only)
    assert study.next_trial() == "done"


def test_seconds_are_counted_once_after_a_restart_and_kept_on_resume(controller: MakeController) -> None:
    study, _ = controller()
    record = next_record(study)

    def epoch(study: StudyController, number: int) -> None:
        total = {"time/total_s": 1.5 * number}
        study.on_report(record.id, number, {"val/miou": 0.1, "time/train_s": 1.0, "time/val_s": 0.5, **total})

    epoch(study, 1)
    epoch(study, 1)  # the workers go on from this epoch's checkpoint
    assert record.seconds == 1.5
    study.storage.close()
    again, _ = controller()
    resumed = next_record(again)
    epoch(again, 1)
    epoch(again, 2)
    assert resumed.id == record.id
    assert resumed.seconds == 3.0


def test_seconds_of_workers_that_do_not_sum_them_are_counted_once_too(controller: MakeController) -> None:
    study, _ = controller()
    record = next_record(study)
    for number in (1, 1, 2):
        study.on_report(record.id, number, {"val/miou": 0.1, "time/train_s": 1.0, "time/val_s": 0.5})
    assert record.seconds == 3.0


@pytest.mark.parametrize("which", ["the first point", "a draw", "a repeat"])
def test_a_failed_trial_is_asked_again_by_the_next_driver(
    which: str, controller: MakeController, tmp_path: Path
) -> None:
    (tmp_path / "confirm.yaml").write_text(SPACE.replace("trials: 8", "trials: 2") + "confirm: {seeds: 1}\n")
    space = load_space(tmp_path / "confirm.yaml")
    study, _ = controller(space=space)
    place = ["the first point", "a draw", "a repeat"].index(which)
    for _ in range(place):
        train(study, next_record(study))
    failed = next_record(study)
    study.on_report(failed.id, 1, {"val/miou": 0.1, "time/train_s": 1.0, "time/val_s": 0.5})
    study.on_trial_end(failed.id, "half an hour without a free node")
    searched = study.storage.searched()
    study.storage.close()

    for driver in range(2):  # the second one is killed in the middle of it
        storage = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
        assert [trial.id for trial in storage.ask_again()] == ([failed.id] if driver == 0 else [])
        assert [trial.id for trial in storage.running()] == [failed.id]
        again = storage.get(failed.id)
        assert (again.state, again.reason, again.epoch, again.seconds) == ("RUNNING", "", 0, 0.0)
        assert again.config == failed.config
        assert storage.searched() == searched
        storage.close()

    resumed, _ = controller(space=space)
    assert next_record(resumed).id == failed.id
    train(resumed, resumed.in_flight[failed.id])
    while isinstance(record := resumed.next_trial(), TrialRecord):
        train(resumed, record)
    assert resumed.storage.get(failed.id).state == "COMPLETE"
    assert resumed.storage.searched() == 2
    resumed.storage.close()
    history = read_history(tmp_path / "study.journal", space.search.objectives)
    assert [trial.state for trial in history.trials if trial.id == failed.id] == ["COMPLETE"]
    final, _ = controller(space=space)
    assert final.next_trial() == "done"
    assert final.storage.get(failed.id).state == "COMPLETE"


def test_running_trials_of_an_earlier_driver_come_first(controller: MakeController) -> None:
    study, _ = controller()
    done, running = next_record(study), next_record(study)
    train(study, done)
    study.storage.close()
    again, _ = controller()
    first = next_record(again)
    assert (first.id, first.config) == (running.id, running.config)
    assert next_record(again).id not in (done.id, running.id)


def test_frontier_members_are_repeated_beside_controls_shared_between_equal_students(
    controller: MakeController, tmp_path: Path
) -> None:
    text = SPACE.replace("stop: pareto", "stop: none") + "confirm: {seeds: 2}\n"
    (tmp_path / "confirm.yaml").write_text(text)
    study, _ = controller(space=load_space(tmp_path / "confirm.yaml"))
    while (record := study.next_trial()) not in ("done", "wait"):
        assert isinstance(record, TrialRecord)
        if record.stage != "search":
            break
        train(study, record, {"resnet18": 0.6, "mobilenet_v2": 0.3}[record.config.student.encoder])
    members = study.members()
    assert len(members) == 2
    while isinstance(record, TrialRecord):
        train(study, record, 0.5)
        record = study.next_trial()
    assert record == "done"
    repeats = [r for r in study.storage.trials if r.stage == "confirm"]
    controls = [r for r in study.storage.trials if r.stage == "control"]
    assert sorted((r.params["of"], r.config.train.seed) for r in repeats) == sorted(
        (member.id, seed) for member in members for seed in (1, 2)
    )
    assert all(control.config.teacher is None and control.config.distill == {} for control in controls)
    # Members with the same student and training share their controls.
    different = {(m.config.student.encoder, m.config.train.lr) for m in members}
    assert len(controls) == 2 * len(different)
    assert study.members() == members, "repeats are no points of the search"


@pytest.mark.parametrize("kept", [False, True])
def test_repeats_read_the_live_teacher_unless_confirm_cache_is_set(
    kept: bool, controller: MakeController, tmp_path: Path
) -> None:
    text = SPACE.replace("encoder: resnet50", "encoder: resnet50, cache: auto, cache_format: uint8")
    text = text.replace("trials: 8", "trials: 1") + f"confirm: {{seeds: 1, cache: {str(kept).lower()}}}\n"
    (tmp_path / "confirm.yaml").write_text(text)
    study, _ = controller(space=load_space(tmp_path / "confirm.yaml"))
    first = next_record(study)
    train(study, first, miou=0.5)
    repeat = next_record(study)
    assert repeat.stage == "confirm"
    assert first.config.teacher is not None
    assert repeat.config.teacher is not None
    assert first.config.teacher.cache == "auto"
    assert repeat.config.teacher.cache == ("auto" if kept else "off")
    assert repeat.config.teacher.network() == first.config.teacher.network()


def test_confirmation_waits_for_the_search(controller: MakeController, tmp_path: Path) -> None:
    (tmp_path / "confirm.yaml").write_text(SPACE.replace("trials: 8", "trials: 2") + "confirm: {seeds: 1}\n")
    study, _ = controller(space=load_space(tmp_path / "confirm.yaml"))
    first, second = next_record(study), next_record(study)
    assert study.next_trial() == "wait"
    train(study, first)
    assert study.next_trial() == "wait"
    train(study, second)
    assert next_record(study).stage == "confirm"


def test_a_completed_trial_that_the_rungs_missed_is_reported_to_them(controller: MakeController) -> None:
    """The driver died between writing to the storage and to the rungs."""
    first, _ = controller()
    record = first.next_trial()
    assert isinstance(record, TrialRecord)
    train(first, record, miou=0.6)
    assert record.state == "COMPLETE"
    first.storage.close()
    again, _ = controller()  # with empty rungs
    assert again.rungs.ends == {record.id: {"miou": 0.6, "gflops": record.cost["gflops"]}}
    again.storage.close()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_an_objective_that_is_no_number_is_a_failed_trial(
    value: float | None, controller: MakeController, tmp_path: Path
) -> None:
    """It stands on no frontier, no rung compares it, and no file holds a NaN."""
    study, _ = controller()
    good = next_record(study)
    train(study, good)
    bad = next_record(study)
    metrics = {"time/train_s": 1.0, "loss/task": float("nan")} | ({} if value is None else {"val/miou": value})
    assert not study.on_report(bad.id, 1, metrics)
    study.on_trial_end(bad.id, None)
    assert bad.state == "FAIL"
    assert bad.reason == "the objective miou is not a number after epoch 1"
    assert [trial.id for trial in study.members()] == [good.id]
    study.storage.close()
    text = (tmp_path / "study.journal").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text


def test_an_earlier_study_with_a_nan_is_read_without_it(controller: MakeController, tmp_path: Path) -> None:
    study, _ = controller()
    first = next_record(study)
    train(study, first)
    study.storage.close()
    journal = tmp_path / "study.journal"
    journal.write_text(journal.read_text().replace('"val/miou":0.5', '"val/miou":NaN'))
    again, _ = controller()
    record = again.storage.get(first.id)
    assert (record.state, record.reason) == ("FAIL", f"the objective miou is not a number after epoch {record.epoch}")
    assert again.members() == []
