"""What MLflow refuses during a study is counted and told at the end; the rest arrives."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.callbacks import StudyEnd
from kdsearch.search.summary import StudySummary
from kdsearch.search.trial_record import TrialRecord
from kdsearch.tracking.mlflow.callback import MLflowCallback
from kdsearch.tracking.mlflow.outbox import Losses
from tests.tracking.mlflow.doubles import Answer, fake_mlflow

FORBIDDEN: Answer = (403, "the token has run out")


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space("clfd", profile="demo")


def run_of(tmp_path: Path) -> RunFolder:
    run = RunFolder.at(str(tmp_path), "study")
    run.create()
    return run


def trial(space: SearchSpace, name: str) -> TrialRecord:
    return TrialRecord(name, "search", "RUNNING", space.default().trial, {}, {"gflops": 0.4})


def play(tracker: MLflowCallback, record: TrialRecord, **metrics: float) -> None:
    tracker.on_trial_start(record)
    record.epoch, record.metrics, record.state = 1, {"val/miou": 0.5, **metrics}, "COMPLETE"
    tracker.on_trial_end(record)


def test_refused_calls_are_counted_and_the_first_reason_is_told(
    tmp_path: Path, store: Store, space: SearchSpace
) -> None:
    asked: list[str] = []

    def refuse(path: str, request: dict[str, Any]) -> Answer | None:
        """The run of `t0001`, and marks of the frontier."""
        if path == "runs/create":
            asked.append(request["run_name"].split()[0])
            return FORBIDDEN if asked[-1] == "t0001" else None
        return FORBIDDEN if path == "runs/set-tag" else None

    run, said = run_of(tmp_path), list[str]()
    (run.path / "frontier.html").write_text("a page")
    with fake_mlflow(tmp_path / "artifacts", refuse) as server:
        with MLflowCallback(server.url, space, run, said.append) as tracker:
            tracker.begin(store)
            first, second, third = (trial(space, f"t000{i}") for i in range(3))
            play(tracker, first)
            tracker.on_trial_start(second)
            deadline = time.monotonic() + 30
            while "t0001" not in asked and time.monotonic() < deadline:
                time.sleep(0.05)
            tracker.on_trial_result(second)
            play(tracker, third)
            tracker.on_frontier([first], 0.5)
            tracker.on_study_end(StudyEnd("done"))
        assert server.run("t0000")["status"] == server.run("t0002")["status"] == "FINISHED"
        assert server.run("t0002")["metrics"]["val/miou"] == 0.5
        assert server.run("")["status"] == "FINISHED", "a refused call takes no other with it"
    assert tracker.losses.refused == 3, "the run of the trial, an epoch of it, and the mark of the frontier"
    assert tracker.losses.unsent == 0
    told = [line for line in said if "refused" in line]
    assert len(told) == 2, "one line at once, one at the end"
    assert "refused a call" in told[0]
    assert f"refused 3 of {tracker.losses.calls} calls, first: " in told[1]
    assert all("the token has run out" in line for line in told)


def test_an_address_that_refuses_ends_the_study_before_it_begins(tmp_path: Path, space: SearchSpace) -> None:
    with fake_mlflow(tmp_path, lambda path, request: (401, "who are you?")) as server:
        tracker = MLflowCallback(server.url, space, run_of(tmp_path), print)
        tracker.start()
        with pytest.raises(UserError, match="MLFLOW_TRACKING_USERNAME"):
            tracker.wait_until_open()
    assert tracker._process is None, "the process has ended"


def test_a_study_without_a_trial_is_taken_back(tmp_path: Path, store: Store, space: SearchSpace) -> None:
    """It was refused after its address was found right, for want of a node for example."""
    with fake_mlflow(tmp_path / "artifacts") as server:
        with MLflowCallback(server.url, space, run_of(tmp_path), print) as tracker:
            tracker.begin(store)
        assert server.run("")["stage"] == "deleted"
    assert (tracker.losses.refused, tracker.losses.unsent) == (0, 0)


def test_every_class_has_a_metric_of_its_own(tmp_path: Path, store: Store, space: SearchSpace) -> None:
    classes = {"tree+": 0.1, "tree*": 0.2, "car/": 0.3, "a//b": 0.4, "x" * 300: 0.5}
    with fake_mlflow(tmp_path / "artifacts") as server:
        with MLflowCallback(server.url, space, run_of(tmp_path), print) as tracker:
            tracker.begin(store)
            play(tracker, trial(space, "t0000"), **{f"val/iou/{name}": iou for name, iou in classes.items()})
        metrics = server.run("t0000")["metrics"]
    assert sorted(iou for name, iou in metrics.items() if name.startswith("val/iou")) == sorted(classes.values())
    assert tracker.losses.refused == 0


def test_a_parameter_that_is_refused_costs_no_metric(tmp_path: Path, store: Store, space: SearchSpace) -> None:
    def refuse(path: str, request: dict[str, Any]) -> Answer | None:
        """As a server of an older MLflow does, with shorter limits."""
        mine = path == "runs/log-batch" and any(each["key"] == "student.arch" for each in request.get("params", []))
        return (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "too long"}) if mine else None

    with fake_mlflow(tmp_path / "artifacts", refuse) as server:
        with MLflowCallback(server.url, space, run_of(tmp_path), print) as tracker:
            tracker.begin(store)
            play(tracker, trial(space, "t0000"))
        run = server.run("t0000")
    assert (run["status"], run["metrics"]["val/miou"], run["tags"]["kdsearch.state"]) == ("FINISHED", 0.5, "COMPLETE")
    assert (tracker.losses.refused, "too long" in tracker.losses.reason) == (1, True)


@pytest.mark.parametrize("losses", [Losses(9), Losses(9, refused=2, unsent=1, reason="the token has run out")])
def test_the_summary_has_the_losses(losses: Losses, space: SearchSpace, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    StudySummary(space="clfd", status="done").write(run.summary)
    tracker = MLflowCallback("http://me@mlflow:5000", space, run, print)
    tracker.losses = losses
    tracker._note_losses()
    lost = {"uri": "http://mlflow:5000", "calls": 9, "refused": 2, "unsent": 1, "reason": "the token has run out"}
    summary = StudySummary.read(run.summary)
    assert summary.tracking == (lost if losses.refused else None)
    assert summary.status == "done"
