"""The controller behind Tune's interfaces, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdsearch.config.space.search_space import SearchSpace
from kdsearch.engine import tune
from kdsearch.engine.cluster import Node
from kdsearch.engine.faults import Faults
from kdsearch.engine.messages import AttemptEnded, NotSaved, Placement, Progress, TrialFailed, TrialJob, reply_of
from kdsearch.engine.timeouts import Timeouts
from kdsearch.engine.tune import ControllerScheduler, ControllerSearcher, DriverError, WatchdogCallback
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


def faults(max_failures: int = 3) -> Faults:
    nodes = {name: Node(1.0, 0.0, 2**40, name, name) for name in ("a", "b")}
    return Faults(Placement(), max_failures, lambda: nodes)


def test_a_cluster_that_grows_is_used(controller: StudyController) -> None:
    slots = 1
    searcher = ControllerSearcher(controller, job_of, {}, lambda: slots, faults())
    assert searcher.suggest("a")["job"].id == "t0000"
    assert searcher.suggest("b") is None
    slots = 2
    assert searcher.suggest("b") is not None
    slots = 1
    assert searcher.suggest("c") is None


def test_a_trial_that_cannot_be_saved_ends_the_study_and_stays_running(controller: StudyController) -> None:
    searcher = ControllerSearcher(controller, job_of, {}, lambda: 1, faults())
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
    searcher = ControllerSearcher(controller, job_of, {}, lambda: 1, faults())
    watch: Any = WatchdogCallback(controller, searcher, Timeouts(900, 40))
    searcher.suggest("a")
    for clock[0] in (0.0, 500.0, 1500.0):
        watch.on_step_end(0, [])
    controller.on_report("t0000", 1, {"val/miou": 0.1})
    for clock[0] in (1600.0, 3000.0):
        watch.on_step_end(0, [])
    searcher.on_trial_complete("a", AttemptEnded("the cluster has no room", "place").to_result())
    searcher.suggest("b")  # an attempt that ended is a sign of life too
    for clock[0] in (3100.0, 4500.0):
        watch.on_step_end(0, [])
    clock[0] = 5000.0
    with pytest.raises(DriverError) as caught:
        watch.on_step_end(0, [])
    assert isinstance(caught.value.error, TimeoutError)
    assert "no report of t0000" in str(caught.value.error)


def test_a_stopped_study_starts_no_trial_and_ends_none(controller: StudyController) -> None:
    stopped = False
    searcher = ControllerSearcher(controller, job_of, {}, lambda: 2, faults(), lambda: stopped)
    searcher.suggest("a")
    stopped = True
    assert searcher.suggest("b") == searcher.FINISHED
    searcher.on_trial_complete("a", Progress(1, {"val/miou": 0.1}).to_result())
    assert [trial.id for trial in controller.storage.running()] == ["t0000"]


class Lines(StudyCallback):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.starts: list[str] = []

    def on_message(self, text: str) -> None:
        self.lines.append(text)

    def on_trial_start(self, trial: TrialRecord) -> None:
        self.starts.append(trial.id)

    def on_trial_restart(self, trial: TrialRecord, reason: str) -> None:
        self.lines.append(f"{trial.id}: {reason}")


def ended(reason: str, kind: Any, *nodes: str) -> dict[str, Any]:
    return AttemptEnded(reason, kind, nodes).to_result()


def test_replies_are_what_they_were_after_a_journey_through_tune() -> None:
    for reply in (
        AttemptEnded("OSError: stale", "error", ("a",)), NotSaved("full", False, "/runs", ("a",)),
        TrialFailed("loss/kd is not finite", infeasible=True),
    ):  # fmt: skip
        assert reply_of(reply.to_result()) == reply
    flat = {"epoch": 2, "metrics/val/miou": 0.5, "nodes": ("a",)}
    assert reply_of(flat) == Progress(2, {"val/miou": 0.5}, ("a",))


def test_a_poisoned_worker_costs_no_trial(controller: StudyController) -> None:
    """An exception sends the trial to another process, and its next epoch shows that it was not at fault."""
    controller.callback = callback = Lines()
    searcher = ControllerSearcher(controller, job_of, {}, lambda: 1, faults())
    scheduler: Any = ControllerScheduler(controller, searcher)
    for attempt in range(1, 4):
        name = f"attempt {attempt}"
        assert searcher.suggest(name)["job"].id == "t0000"
        result = {"epoch": attempt, "metrics/val/miou": 0.1, "nodes": ("a",)}
        scheduler.on_trial_result(None, SimpleNamespace(trial_id=name), result)
        searcher.on_trial_complete(name, ended("RuntimeError: CUDA error", "error", "a"))
    assert controller.storage.get("t0000").state == "RUNNING"
    assert callback.lines == ["t0000: RuntimeError: CUDA error"] * 3
    assert callback.starts == ["t0000"]


def test_the_same_exception_everywhere_fails_the_trial_with_it(controller: StudyController) -> None:
    searcher = ControllerSearcher(controller, job_of, {}, lambda: 1, faults())
    for number, where in enumerate("aab"):
        config = searcher.suggest(f"x{number}")
        assert config["job"].id == "t0000" or number == 2
        while config["job"].id != "t0000":  # handed out later: the rest of the search comes first
            controller.on_report(config["job"].id, 4, {"val/miou": 0.1})
            searcher.on_trial_complete(f"x{number}", Progress(4, {"val/miou": 0.1}).to_result())
            number += 10
            config = searcher.suggest(f"x{number}")
        assert config["avoid"] == (("a",) if where == "b" else ())
        searcher.on_trial_complete(f"x{number}", ended("KeyError: 'taps'", "error", where))
    failed = controller.storage.get("t0000")
    assert (failed.state, failed.reason) == ("FAIL", "KeyError: 'taps'")


def test_a_trial_that_finds_no_place_for_days_has_not_failed(controller: StudyController) -> None:
    controller.callback = callback = Lines()
    searcher = ControllerSearcher(controller, job_of, {}, lambda: 1, faults(max_failures=0))
    for number in range(2000):
        assert searcher.suggest(str(number))["job"].id == "t0000"
        searcher.on_trial_complete(str(number), ended("the cluster has no room for 1 worker(s)", "place"))
    assert callback.lines == [
        "t0000 waits: the cluster has no room for 1 worker(s); it starts as soon as there is room"
    ]
    assert callback.starts == ["t0000"]


def test_a_trial_whose_node_has_gone_says_that_it_waits_for_another(controller: StudyController) -> None:
    controller.callback = callback = Lines()
    slots = 2
    searcher = ControllerSearcher(controller, job_of, {}, lambda: slots, faults())
    searcher.suggest("a")
    searcher.suggest("b")
    slots = 1
    searcher.on_trial_complete("a", ended("the workers died", "died", "gone"))
    assert [searcher.suggest("c") for _ in range(3)] == [None] * 3
    assert [line.split(";")[0] for line in callback.lines] == [
        "t0000: the workers died",
        "t0000 waits: the cluster has no room for 1 worker(s) with 1 CPU and 0 GPU each",
    ]


def test_a_trial_whose_device_others_filled_gets_one_of_its_own_in_the_end(controller: StudyController) -> None:
    searcher = ControllerSearcher(controller, job_of, {}, lambda: 1, faults())
    searcher.suggest("x")
    searcher.on_trial_complete("x", ended("out of device memory at batch size 4", "memory", "a"))
    seen, number = [], 0
    while (config := searcher.suggest(str(number))) != searcher.FINISHED:
        name = config["job"].id
        seen.append((name, config["alone"]))
        controller.on_report(name, 4, {"val/miou": 0.1})
        searcher.on_trial_complete(str(number), Progress(4, {"val/miou": 0.1}).to_result())
        number += 1
    assert seen[-1] == ("t0000", True)
    assert [alone for _, alone in seen[:-1]] == [False] * (len(seen) - 1)
    assert controller.storage.get("t0000").state == "COMPLETE"


def test_a_verdict_is_final(controller: StudyController) -> None:
    searcher = ControllerSearcher(controller, job_of, {}, lambda: 1, faults())
    for name, infeasible, state in (("t0000", False, "FAIL"), ("t0001", True, "INFEASIBLE")):
        searcher.suggest(name)
        record = next(iter(controller.in_flight.values()))
        searcher.on_trial_complete(name, TrialFailed("its own fault", infeasible).to_result())
        assert record.state == state


def test_the_last_trial_of_a_study_comes_back_too(controller: StudyController) -> None:
    """Tune asks no more once it has heard that the search is over."""
    searcher = ControllerSearcher(controller, job_of, {}, lambda: 2, faults())
    controller.storage._index.searched = 7
    searcher.suggest("last")
    assert searcher.suggest("beyond") is None
    searcher.on_trial_complete("last", ended("the workers died", "died", "a"))
    assert searcher.suggest("again")["job"].id == "t0000"


def test_a_mount_that_is_stale_on_one_worker_is_that_machine_s_fault(
    controller: StudyController, tmp_path: Path
) -> None:
    searcher = ControllerSearcher(controller, job_of, {}, lambda: 1, faults())
    searcher.suggest("a")
    searcher.on_trial_complete("a", NotSaved("Stale file handle", False, str(tmp_path), ("a",)).to_result())
    assert searcher.suggest("b")["job"].id == "t0000"
    with pytest.raises(DriverError):
        searcher.on_trial_complete("b", NotSaved("gone", False, str(tmp_path / "gone"), ("a",)).to_result())


def test_a_trial_actor_that_dies_is_replaced(controller: StudyController, tmp_path: Path) -> None:
    searcher = ControllerSearcher(controller, job_of, {}, lambda: 1, faults())
    scheduler: Any = ControllerScheduler(controller, searcher)
    searcher.suggest("a")
    (tmp_path / "error.txt").write_text("Traceback\nray.exceptions.ActorDiedError: The actor died.")
    scheduler.on_trial_error(None, SimpleNamespace(trial_id="a", error_file=str(tmp_path / "error.txt")))
    searcher.on_trial_complete("a", error=True)
    assert searcher.suggest("b")["job"].id == "t0000"
