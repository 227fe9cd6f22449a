"""A tracking server that is away costs a study nothing and loses nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from kdsearch.config.space import load_space
from kdsearch.data.store import Store
from kdsearch.run_folder import RunFolder
from kdsearch.search.record import Record
from kdsearch.tracking.mlflow import Tracker, check_server


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


def end_server(server: subprocess.Popen[bytes]) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


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
    trial = Record("t0000", "search", "RUNNING", space.default().trial, {}, {"gflops": 0.4})
    said: list[str] = []
    server = serve(port, tmp_path)
    try:
        check_server(uri)
        with Tracker(uri, space, run, store, said.append) as tracker:
            tracker.started(trial)
            trial.epoch, trial.metrics = 1, {"val/miou": 0.1}
            tracker.epoch(trial)
            time.sleep(3)
            end_server(server)
            started = time.monotonic()
            trial.epoch, trial.metrics = 2, {"val/miou": 0.2}
            tracker.epoch(trial)
            assert time.monotonic() - started < 0.5, "the study waited for the server"
            server = serve(port, tmp_path)
            trial.state, trial.epoch, trial.metrics = "COMPLETE", 3, {"val/miou": 0.3}
            tracker.epoch(trial)
            tracker.ended(trial)
            tracker.finish("done")
        assert said == []
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
    tracker = Tracker(None, space, run, store, print)
    tracker._runs = {"": "parent"} | {f"t{i:04d}": f"run-{i}" for i in (*range(200), 10_000)}
    tags: list[tuple[str, str]] = []
    client = SimpleNamespace(
        set_tag=lambda run_id, key, value: tags.append((run_id, value)), log_batch=lambda *arguments, **options: None
    )

    def announce(*numbers: int) -> list[tuple[str, str]]:
        members = [Record(f"t{i:04d}", "search", "COMPLETE", space.default().trial, {}, {}) for i in numbers]
        tracker.frontier(members, 0.5)
        tags.clear()
        while not tracker._calls.empty():
            call = tracker._calls.get()
            assert call is not None
            call(client)  # type: ignore[arg-type]
        return sorted(tags)

    assert announce(3, 7) == [("run-3", "true"), ("run-7", "true")]
    assert announce(3, 7) == []
    assert announce(7, 10_000, 300) == [("run-10000", "true"), ("run-3", "false")]
