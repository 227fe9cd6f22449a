"""Updates of a run are sent together, whole, and with the times of their points."""

from __future__ import annotations

import pickle
import queue
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mlflow import MlflowClient

from kdsearch.config.space.search_space import load_space
from kdsearch.config.space.shipped import shipped_spaces
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.trial_record import TrialRecord
from kdsearch.tracking.mlflow.callback import MLflowCallback
from kdsearch.tracking.mlflow.messages import RunUpdate
from kdsearch.tracking.mlflow.writer import GATHER_S, MLflowWriter
from kdsearch.train.teacher import teacher_trial


class Client:
    """Notes the calls; the log fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.calls: list[str] = []
        self.failures = failures
        self.metrics: list[tuple[str, int, float, int]] = []
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.name = ""

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        self.calls.append("create")
        self.name = run_name
        self.tags |= tags
        return SimpleNamespace(info=SimpleNamespace(run_id="run"))

    def get_run(self, run_id: str) -> Any:
        return SimpleNamespace(data=SimpleNamespace(metrics={name: 0.0 for name, *_ in self.metrics}))

    def update_run(self, run_id: str, status: str) -> None:
        self.calls.append(status)

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError
        assert len(metrics) + len(params) + len(tags) <= 1000
        assert max(len(params), len(tags)) <= 100
        self.calls.append("log")
        self.metrics += [(m.key, m.step, m.value, m.timestamp) for m in metrics]
        self.params |= {p.key: p.value for p in params}
        self.tags |= {t.key: t.value for t in tags}

    def set_terminated(self, run_id: str, status: str) -> None:
        self.calls.append(status)


def tracker_of(tmp_path: Path) -> tuple[MLflowCallback, MLflowWriter, Any]:
    """The callback of a study, and the writer of its process, both here."""
    run = RunFolder.at(str(tmp_path), "study")
    run.create()
    space = load_space("clfd", profile="demo")
    tracker = MLflowCallback(None, space, run, print)
    runs = MLflowWriter(tracker._header, print)
    runs._runs, runs._experiment_id = {"": "parent"}, "1"
    runs.outbox._ending.set()  # no update waits for later ones
    return tracker, runs, space.default().trial


def deliver(tracker: MLflowCallback, runs: MLflowWriter) -> None:
    """Deliver the messages of the driver to the process."""
    while not tracker._messages.empty():
        runs.receive(pickle.loads(pickle.dumps(tracker._messages.get())))


def drain(tracker: MLflowCallback, runs: MLflowWriter, client: Client) -> None:
    deliver(tracker, runs)
    make_calls(runs, client)


def make_calls(runs: MLflowWriter, client: Client) -> None:
    """Make the waiting calls, each until it succeeds, as the process does."""
    while True:
        try:
            call = runs.outbox._waiting.get_nowait()
        except queue.Empty:
            return
        assert call is not None
        for _ in range(5):
            try:
                call(cast(Any, client))
                break
            except ConnectionError:
                continue
        else:
            raise AssertionError


def run_through(tracker: MLflowCallback, record: TrialRecord, between: Any = lambda: None) -> None:
    tracker.on_trial_start(record)
    between()
    for epoch in range(1, record.config.train.epochs + 1):
        record.epoch, record.metrics = epoch, {"val/miou": epoch / 10, "loss/a(b)": 1.0}
        tracker.on_trial_result(record)
        between()
    record.state = "COMPLETE"
    tracker.on_trial_end(record)
    between()


@pytest.mark.parametrize("failures", [0, 3])
def test_messages_that_wait_for_each_other_go_in_one_call(tmp_path: Path, failures: int) -> None:
    tracker, runs, config = tracker_of(tmp_path)
    client = Client(failures)
    run_through(tracker, TrialRecord("t0000", "search", "RUNNING", config, {}, {"gflops": 0.4}))
    drain(tracker, runs, client)
    assert [call for call in client.calls if call != "RUNNING"] == ["create", "log", "FINISHED"]
    epochs = config.train.epochs
    points = sorted((name, step, value) for name, step, value, _ in client.metrics)
    assert [p for p in points if p[0] == "val/miou"] == [("val/miou", e, e / 10) for e in range(1, epochs + 1)]
    assert ("cost/gflops", 0, 0.4) in points
    assert len(points) == 2 * epochs + 1
    assert client.params["student.arch"] == config.student.arch
    assert client.tags["kdsearch.state"] == "COMPLETE"


def test_messages_of_a_second_go_in_one_call_while_nothing_else_waits(tmp_path: Path) -> None:
    tracker, runs, config = tracker_of(tmp_path)
    runs.outbox._ending.clear()
    client = Client()
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.005):
            make_calls(runs, client)

    def between() -> None:
        deliver(tracker, runs)
        time.sleep(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    began = time.monotonic()
    run_through(tracker, TrialRecord("t0000", "search", "RUNNING", config, {}, {"gflops": 0.4}), between)
    while "FINISHED" not in client.calls and time.monotonic() < began + 20:
        time.sleep(0.01)
    over.set()
    thread.join()
    assert time.monotonic() - began >= GATHER_S
    assert [call for call in client.calls if call != "RUNNING"] == ["create", "log", "FINISHED"]


def test_messages_sent_one_by_one_say_the_same(tmp_path: Path) -> None:
    def sent(at_once: bool, folder: Path) -> tuple[Any, ...]:
        tracker, runs, config = tracker_of(folder)
        client = Client()
        record = TrialRecord("t0000", "search", "RUNNING", config, {}, {"gflops": 0.4})
        run_through(tracker, record, lambda: None if at_once else drain(tracker, runs, client))
        drain(tracker, runs, client)
        return sorted(m[:3] for m in client.metrics), client.params, client.tags

    assert sent(True, tmp_path / "a") == sent(False, tmp_path / "b")


def test_an_epoch_that_is_reported_again_is_sent_once(tmp_path: Path) -> None:
    tracker, runs, config = tracker_of(tmp_path)
    client = Client()
    record = TrialRecord("t0000", "search", "RUNNING", config, {}, {"gflops": 0.4})
    tracker.on_trial_start(record)
    record.epoch, record.metrics = 1, {"val/miou": 0.1}
    for _ in range(2):
        tracker.on_trial_result(record)  # and once more, from the checkpoint, when the first has been sent
        tracker.on_trial_result(record)
        tracker.on_trial_restart(record, "a worker died")
        tracker.on_trial_start(record)
        drain(tracker, runs, client)
    assert sorted(m[:2] for m in client.metrics) == [("cost/gflops", 0), ("val/miou", 1)]
    assert client.tags["kdsearch.restarted"] == "a worker died"


def test_the_run_of_the_study_has_two_points_at_one_step(tmp_path: Path) -> None:
    tracker, runs, _ = tracker_of(tmp_path)
    client = Client()
    for volume in (0.1, 0.2):
        tracker.on_frontier([], volume)
        drain(tracker, runs, client)
    assert [m[2] for m in client.metrics if m[0] == "hypervolume"] == [0.1, 0.2]


def test_a_long_update_is_sent_in_parts_and_keeps_its_times(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("kdsearch.tracking.mlflow.messages.time.time", lambda: next(clock))
    update = RunUpdate("t0000", params={f"p{i}": "1" for i in range(250)}, tags={"x": "y"})
    for epoch in range(1, 201):
        update.add({f"m{i}": float(epoch) for i in range(10)}, epoch)
    client = Client()
    assert update.send(cast(Any, client), "run", after=3) == 200
    assert sorted(client.metrics) == sorted(
        (f"m{i}", epoch, float(epoch), (epoch - 1) * 1000) for i in range(10) for epoch in range(4, 201)
    )
    assert len(client.params) == 250
    assert client.tags == {"x": "y"}


def test_mlflow_counts_a_point_that_is_sent_again_once(tmp_path: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'm.db'}")
    run = client.create_run(client.create_experiment("x")).info.run_id
    update = RunUpdate("t0000", params={"a": "1"})
    update.add({"val/miou": 0.5}, 1)
    for _ in range(2):
        update.send(client, run, after=0)
    assert len(client.get_metric_history(run, "val/miou")) == 1


@pytest.mark.parametrize("name", shipped_spaces())
def test_every_student_and_teacher_has_a_name_and_is_logged(tmp_path: Path, name: str) -> None:
    tracker, runs, _ = tracker_of(tmp_path)
    config = load_space(name, profile="demo").default().trial
    for trial_id, each in {"t0000": config, "teacher": teacher_trial(config)}.items():
        client = Client()
        run_through(tracker, TrialRecord(trial_id, "search", "RUNNING", each, {}, {"gflops": 0.4}))
        drain(tracker, runs, client)
        assert [call for call in client.calls if call != "RUNNING"] == ["create", "log", "FINISHED"]
        assert client.name.startswith(f"{trial_id} {each.student.arch} ")
        assert client.name.split()[2:]
