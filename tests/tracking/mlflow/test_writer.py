"""A tracking server that is away costs a study nothing and loses nothing."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from multiprocessing.connection import Pipe
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.data.store.store import Store
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.callbacks import StudyEnd
from kdsearch.search.trial_record import TrialRecord
from kdsearch.tracking.mlflow.address import check_server
from kdsearch.tracking.mlflow.callback import MLflowCallback, _versions
from kdsearch.tracking.mlflow.writer import MLflowWriter


def serve(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """An MLflow server, answering."""
    server = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder / "a"),
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 90
    while time.monotonic() < end:
        try:
            if requests.get(f"http://127.0.0.1:{port}/health", timeout=1).ok:
                return server
        except requests.RequestException:
            time.sleep(0.5)
    end_server(server)
    raise AssertionError("the MLflow server did not start")


def lost(said: list[str]) -> list[str]:
    """The notes on messages that were not sent; others are about the wait at the end."""
    return [line for line in said if "--resume sends the missing ones" in line]


def end_server(server: subprocess.Popen[bytes]) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def test_a_machine_without_git_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(_versions()) == {"kdsearch.version"}


@pytest.mark.slow
def test_a_server_that_goes_away_and_comes_back_has_everything(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    space = load_space("clfd", profile="demo")
    run = RunFolder.at(str(tmp_path), "study")
    run.create()
    trial = TrialRecord("t0000", "search", "RUNNING", space.default().trial, {}, {"gflops": 0.4})
    said: list[str] = []
    server = serve(port, tmp_path)
    try:
        check_server(uri)
        with MLflowCallback(uri, space, run, said.append) as tracker:
            tracker.begin(store)
            tracker.on_trial_start(trial)
            trial.epoch, trial.metrics = 1, {"val/miou": 0.1}
            tracker.on_trial_result(trial)
            time.sleep(3)
            end_server(server)
            started = time.monotonic()
            trial.epoch, trial.metrics = 2, {"val/miou": 0.2}
            tracker.on_trial_result(trial)
            assert time.monotonic() - started < 0.5, "the study waited for the server"
            server = serve(port, tmp_path)
            trial.state, trial.epoch, trial.metrics = "COMPLETE", 3, {"val/miou": 0.3}
            tracker.on_trial_result(trial)
            tracker.on_trial_end(trial)
            tracker.on_study_end(StudyEnd("done"))
        assert not lost(said)
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("kdsearch/clfd")
        assert experiment is not None
        runs = {r.data.tags["kdsearch.trial"]: r for r in client.search_runs([experiment.experiment_id])}
        history = client.get_metric_history(runs["t0000"].info.run_id, "val/miou")
        assert [(m.step, m.value) for m in history] == [(1, 0.1), (2, 0.2), (3, 0.3)]
        assert runs["t0000"].info.status == "FINISHED"
        assert runs[""].info.status == "FINISHED"
        assert runs[""].inputs.dataset_inputs[0].dataset.name == store.info.name
    finally:
        end_server(server)


def test_only_tags_of_points_that_came_or_went_are_written(tmp_path: Path, store: Store) -> None:
    run = RunFolder.at(str(tmp_path), "study")
    run.create()
    space = load_space("clfd", profile="demo")
    tracker = MLflowCallback(None, space, run, print)
    runs = MLflowWriter(tracker._header, print)
    runs._runs = {"": "parent"} | {f"t{i:04d}": f"run-{i}" for i in (*range(200), 10_000)}
    tags: list[tuple[str, str]] = []
    client = SimpleNamespace(
        set_tag=lambda run_id, key, value: tags.append((run_id, value)), log_batch=lambda *arguments, **options: None
    )

    def announce(*numbers: int) -> list[tuple[str, str]]:
        members = [TrialRecord(f"t{i:04d}", "search", "COMPLETE", space.default().trial, {}, {}) for i in numbers]
        tracker.on_frontier(members, 0.5)
        tags.clear()
        while not tracker._messages.empty():
            runs.receive(tracker._messages.get())
        while not runs.outbox._waiting.empty():
            call = runs.outbox._waiting.get()
            assert call is not None
            call(client)  # type: ignore[arg-type]
        return sorted(tags)

    assert announce(3, 7) == [("run-3", "true"), ("run-7", "true")]
    assert announce(3, 7) == []
    assert announce(7, 10_000, 300) == [("run-10000", "true"), ("run-3", "false")]


@pytest.mark.slow
def test_what_a_killed_driver_had_not_sent_is_made_up_for(tmp_path: Path, store: Store) -> None:
    from mlflow import MlflowClient

    space = load_space("clfd", profile="demo")
    run = RunFolder.at(str(tmp_path), "study")
    run.create()
    config, cost = space.default().trial, {"gflops": 0.4}

    def trial(name: str) -> TrialRecord:
        return TrialRecord(name, "search", "RUNNING", config, {}, cost)

    # The first driver: of three trials MLflow hears a part, of a fourth nothing; then everything stops.
    ended, half, begun, unheard, running = (trial(f"t000{i}") for i in range(5))
    with MLflowCallback(None, space, run, print) as tracker:
        tracker.begin(store)
        for each in (ended, half, begun, running):
            tracker.on_trial_start(each)
        for each, epoch in ((ended, 1), (ended, 2), (half, 1), (running, 1)):
            each.epoch, each.metrics = epoch, {"val/miou": epoch / 10}
            tracker.on_trial_result(each)
        ended.state = "COMPLETE"
        tracker.on_trial_end(ended)
    for each, epoch, state in ((half, 3, "COMPLETE"), (begun, 1, "PRUNED"), (unheard, 0, "FAIL")):
        each.epoch, each.metrics = epoch, {"val/miou": epoch / 10} if epoch else {}
        each.state, each.reason = state, "" if epoch else "the workers died"  # type: ignore[assignment]
    infeasible = trial("t0005")
    infeasible.state = "INFEASIBLE"

    # The second one; the trial that was running reports the epoch of its checkpoint again, and the next.
    told = [ended, half, begun, unheard, infeasible]
    with MLflowCallback(None, space, run, print, resumed=True) as tracker:
        tracker.begin(store, told)
        tracker.on_trial_start(running)
        for epoch in (1, 2):
            running.epoch, running.metrics = epoch, {"val/miou": epoch / 10}
            tracker.on_trial_result(running)
        running.state = "COMPLETE"
        tracker.on_trial_end(running)
        tracker.on_study_end(StudyEnd("done"))

    client = MlflowClient(tracking_uri=tracker.uri)
    experiment = client.get_experiment_by_name("kdsearch/clfd")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    runs = {r.data.tags["kdsearch.trial"]: r for r in found}
    assert len(found) == len(runs)
    assert set(runs) == {"", "t0000", "t0001", "t0002", "t0003", "t0004"}

    def history(name: str) -> list[int]:
        return [m.step for m in client.get_metric_history(runs[name].info.run_id, "val/miou")]

    assert [history(f"t000{i}") for i in range(5)] == [[1, 2], [1, 3], [1], [], [1, 2]]
    status = {name: (r.info.status, r.data.tags.get("kdsearch.state")) for name, r in runs.items()}
    assert status == {
        "": ("FINISHED", None), "t0000": ("FINISHED", "COMPLETE"), "t0001": ("FINISHED", "COMPLETE"),
        "t0002": ("KILLED", "PRUNED"), "t0003": ("FAILED", "FAIL"), "t0004": ("FINISHED", "COMPLETE"),
    }  # fmt: skip
    assert runs["t0003"].data.tags["kdsearch.reason"] == "the workers died"
    for name in list(runs)[1:]:
        assert "cost/gflops" in runs[name].data.metrics or name == ""
        assert runs[name].data.params == runs["t0000"].data.params or name == ""


@pytest.mark.slow
def test_a_run_that_was_cut_off_while_it_was_made_is_completed(tmp_path: Path, store: Store) -> None:
    from mlflow import MlflowClient

    space = load_space("clfd", profile="demo")
    run = RunFolder.at(str(tmp_path), "study")
    run.create()
    client = MlflowClient(tracking_uri=f"sqlite:///{run.path / 'mlflow.db'}")
    experiment = client.create_experiment("kdsearch/clfd")
    above: dict[str, str] = {}
    for name in ("", "t0000"):
        made = client.create_run(experiment, tags={"kdsearch.study": "study", "kdsearch.trial": name, **above})
        above = {"mlflow.parentRunId": made.info.run_id}
    trial = TrialRecord("t0000", "search", "FAIL", space.default().trial, {}, {"gflops": 0.4}, reason="no luck")
    with MLflowCallback(None, space, run, print, resumed=True) as tracker:
        tracker.begin(store, [trial])
        tracker.on_study_end(StudyEnd("failed"))
    parent, child = sorted(client.search_runs([experiment]), key=lambda r: r.data.tags["kdsearch.trial"])
    assert parent.data.params["search.trials"] == str(space.search.trials)
    assert parent.info.status == "FAILED"
    assert child.data.params["student.arch"] == space.default().trial.student.arch
    assert child.data.metrics["cost/gflops"] == 0.4
    assert child.info.status == "FAILED"


def study_of(tmp_path: Path) -> tuple[SearchSpace, RunFolder]:
    run = RunFolder.at(str(tmp_path), "study")
    run.create()
    return load_space("clfd", profile="demo"), run


def epochs_of(uri: str, trial: str) -> list[int]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("kdsearch/clfd")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`kdsearch.trial` = '{trial}'")
    return [metric.step for metric in client.get_metric_history(run.info.run_id, "val/miou")]


DRIVER = """
import os, signal, sys, time
from pathlib import Path
from kdsearch.config.space.search_space import load_space
from kdsearch.data.store.store import Store
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.trial_record import TrialRecord
from kdsearch.tracking.mlflow.callback import MLflowCallback

space, run = load_space("clfd", profile="demo"), RunFolder(Path(sys.argv[1]))
with MLflowCallback(None, space, run, print) as tracker:
    tracker.begin(Store.open(sys.argv[2]))
    trial = TrialRecord("t0000", "search", "RUNNING", space.default().trial, {}, {"gflops": 0.4})
    tracker.on_trial_start(trial)
    for epoch in range(1, trial.config.train.epochs):
        trial.epoch, trial.metrics = epoch, {"val/miou": epoch / 10}
        tracker.on_trial_result(trial)
    while not tracker._messages.empty():
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_what_a_killed_driver_had_said_is_sent_before_the_next_driver_writes(tmp_path: Path, store: Store) -> None:
    space, run = study_of(tmp_path)
    killed = subprocess.run([sys.executable, "-c", DRIVER, str(run.path), str(store.path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    trial = TrialRecord("t0000", "search", "RUNNING", space.default().trial, {}, {"gflops": 0.4})
    epochs = trial.config.train.epochs
    with MLflowCallback(None, space, run, print, resumed=True) as tracker:
        tracker.begin(store)
        tracker.on_trial_start(trial)
        trial.epoch, trial.metrics, trial.state = epochs, {"val/miou": 1.0}, "COMPLETE"
        tracker.on_trial_end(trial)
        tracker.on_study_end(StudyEnd("done"))
    assert epochs_of(tracker.uri, "t0000") == list(range(1, epochs + 1)), "one run, with every epoch once"


@pytest.mark.slow
def test_a_driver_that_is_killed_within_a_message_has_said_what_came_before(tmp_path: Path, store: Store) -> None:
    space, run = study_of(tmp_path)
    tracker = MLflowCallback(None, space, run, print)
    trial = TrialRecord("t0000", "search", "RUNNING", space.default().trial, {}, {"gflops": 0.4}, 1, {"val/miou": 0.1})
    tracker.on_trial_start(trial)
    tracker.on_trial_result(trial)
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "kdsearch.tracking.mlflow.process", str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
    with ours:
        ours.send(tracker._header)
        while not tracker._messages.empty():
            ours.send(tracker._messages.get())
        os.write(ours.fileno(), struct.pack("!i", 1000) + b"half a message")
    assert process.wait(60) == 0
    assert epochs_of(tracker.uri, "t0000") == [1]


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [False, True])
def test_a_study_goes_on_when_its_process_for_mlflow_is_killed_or_hangs(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr("kdsearch.tracking.mlflow.callback.REPLY_S", 3.0)
    space, run = study_of(tmp_path)
    trial = TrialRecord("t0000", "search", "RUNNING", space.default().trial, {}, {"gflops": 0.4})
    said: list[str] = []
    with MLflowCallback(None, space, run, said.append, drain_s=0.0) as tracker:
        tracker.begin(store)
        process = tracker._process
        assert process is not None
        process.send_signal(signal.SIGSTOP if hangs else signal.SIGKILL)
        for epoch in range(2000):
            trial.epoch, trial.metrics = 1, {f"loss/{i}": float(epoch) for i in range(50)}
            began = time.monotonic()
            tracker.on_trial_result(trial)
            assert time.monotonic() - began < 1.0
    assert len(lost(said)) == 1
    assert process.returncode == -signal.SIGKILL
    trial.state = "COMPLETE"
    with MLflowCallback(None, space, run, said.append, resumed=True) as tracker:
        tracker.begin(store, [trial])
        tracker.on_study_end(StudyEnd("done"))
    assert epochs_of(tracker.uri, "t0000") == []
    assert len(lost(said)) == 1
