"""The library as a program uses it: in a thread, beside a Ray of its own, with callbacks, in the background."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import kdsearch
from kdsearch.search.trial_record import TrialRecord

pytestmark = pytest.mark.ray

SPACE = {
    "name": "tiny",
    "data": {"name": "scenes", "size": [32, 64], "options": {"train": 8, "val": 4, "height": 32, "width": 64}},
    "teacher": {"arch": "fpn", "encoder": "tu-mobilenetv3_small_050", "train": {"epochs": 1, "batch_size": 4}},
    "student": {"arch": "fpn", "encoder": kdsearch.choice(["tu-mobilenetv3_small_050", "mobilenet_v2"])},
    "distill": {"kd": {"weight": kdsearch.log(0.1, 10.0, default=1.0)}},
    "train": {"lr": kdsearch.log(1e-4, 1e-2, default=1e-3), "epochs": 2, "batch_size": 4},
    "search": {"trials": 2, "sampler": "random"},
}


class Recorder(kdsearch.StudyCallback):
    """Records the names of events; `on_trial_result` fails each time."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.thread = ""
        self.closed = 0

    def on_study_start(self, study: Any) -> None:
        self.events.append("on_study_start")
        self.thread = threading.current_thread().name

    def on_trial_start(self, trial: TrialRecord) -> None:
        self.events.append(f"on_trial_start {trial.id}")

    def on_trial_result(self, trial: TrialRecord) -> None:
        raise RuntimeError("no such chat room")

    def on_trial_end(self, trial: TrialRecord) -> None:
        self.events.append(f"on_trial_end {trial.id} {trial.state}")

    def on_frontier(self, members: Sequence[TrialRecord], hypervolume: float) -> None:
        self.events.append(f"on_frontier {len(members)}")

    def on_study_end(self, end: Any) -> None:
        self.events.append(f"on_study_end {end.status}")

    def close(self) -> None:
        self.closed += 1
        raise RuntimeError("nor a door to close")


class Messages(kdsearch.StudyCallback):
    """Records the lines for people."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_message(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def own_ray() -> Iterator[None]:
    """A Ray that the program has started itself."""
    import ray

    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    yield
    os.environ.pop("RAY_ADDRESS", None)
    ray.shutdown()


@pytest.fixture(scope="module")
def finished(own_ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[kdsearch.Study, Recorder, Messages]:
    """A study that ran in a worker thread, with its two callbacks."""
    recorder, messages, found = Recorder(), Messages(), []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    outputs = [os.readlink(f"/proc/self/fd/{number}") for number in (1, 2)]

    def work() -> None:
        storage = tmp_path_factory.mktemp("api") / "runs"
        found.append(kdsearch.search(SPACE, name="a", storage=storage, callbacks=[recorder, messages], progress="none"))

    thread = threading.Thread(target=work, name="not the main thread")
    thread.start()
    thread.join(300)
    assert found, "the study did not end"
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert [os.readlink(f"/proc/self/fd/{number}") for number in (1, 2)] == outputs
    return found[0], recorder, messages


def test_a_study_in_a_thread_beside_the_programs_own_ray(
    finished: tuple[kdsearch.Study, Recorder, Messages],
) -> None:
    import ray

    study, recorder, _ = finished
    assert ray.is_initialized(), "a running Ray is used and left running"
    assert study.status == "done"
    assert recorder.thread == "not the main thread"
    assert recorder.events[0] == "on_study_start"
    assert recorder.events[-1] == "on_study_end done"
    assert "on_trial_end teacher COMPLETE" in recorder.events
    assert "on_trial_end t0001 COMPLETE" in recorder.events
    all_cpus_come_back()


def test_a_callback_that_fails_is_named_once_and_costs_nothing(
    finished: tuple[kdsearch.Study, Recorder, Messages],
) -> None:
    study, recorder, messages = finished
    assert set(study.trials_dataframe()["state"]) == {"COMPLETE"}
    assert recorder.closed == 1
    assert [line for line in messages.lines if "Recorder" in line] == [
        "callback Recorder.on_trial_result failed (RuntimeError: no such chat room); the study continues",
        "callback Recorder.close failed (RuntimeError: nor a door to close); the study continues",
    ]


def test_the_results_of_a_study(finished: tuple[kdsearch.Study, Recorder, Messages], tmp_path: Path) -> None:
    study, _, _ = finished
    frame = study.trials_dataframe()
    assert list(frame["trial"]) == ["t0000", "t0001"]
    assert {"miou", "gflops", "params_m", "student.encoder", "train.lr"} <= set(frame.columns)
    members = study.frontier()
    assert [trial.id for trial in study.best_trials] == list(members["trial"])
    assert study.hypervolume >= 0
    trial = study.trial("t0001")
    assert list(trial.history().index) == [1, 2]
    assert trial.history()["miou"].iloc[-1] == pytest.approx(trial.metrics["val/miou"])
    student = study.student("knee", budget="gflops<=50")
    assert student.info.name == "scenes"
    assert len(study.optuna().trials) == 2
    assert study.report(tmp_path / "report.html").read_text().startswith("<!")
    for plot in (study.plot_frontier, study.plot_history, study.plot_parallel, study.plot_importance):
        assert plot().figure is not None
    assert kdsearch.load_student(study.export(tmp_path / "bundle")).size == (32, 64)
    again = kdsearch.load_study(study.path)
    assert repr(again) == repr(study)
    with pytest.raises(kdsearch.UserError, match="has no trial"):
        study.trial("t9")
    with pytest.raises(kdsearch.UserError, match="not started by this process"):
        again.stop()


def test_a_study_in_the_background_is_stopped_and_resumed(own_ray: None, tmp_path: Path) -> None:
    started = threading.Event()

    class Started(kdsearch.StudyCallback):
        def on_trial_result(self, trial: TrialRecord) -> None:
            started.set()

    options: dict[str, Any] = {"storage": tmp_path, "name": "b", "progress": "none"}
    longer = {"train.epochs": 30, "teacher": None, "distill": {}}
    study = kdsearch.search(SPACE, set=longer, callbacks=[Started()], block=False, **options)
    assert started.wait(200)
    study.stop()
    study.wait(120)
    assert study.status == "interrupted"
    assert study.summary().status == "interrupted"
    states = {trial.state for trial in study.trials}
    assert states == {"RUNNING"}, "the trials in hand go on when the study is resumed"
    all_cpus_come_back()
    with pytest.raises(kdsearch.StudyFailedError, match="no trial was completed within 1e-06 s") as failed:
        kdsearch.search("tiny", resume=True, time_limit=1e-6, **options)
    assert failed.value.study.status == "failed"


def test_an_interruption_leaves_no_actor_in_the_programs_own_ray(own_ray: None, tmp_path: Path) -> None:
    class Interrupting(kdsearch.StudyCallback):
        def on_trial_result(self, trial: TrialRecord) -> None:
            if trial.epoch == 1:  # the signal comes while the driver waits for the second epoch
                threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()

    alone = {"train.epochs": 60, "teacher": None, "distill": {}}
    options: dict[str, Any] = {"max_concurrent": 1, "progress": "none"}
    before = signal.getsignal(signal.SIGINT)
    gc.disable()  # actors also end when the last reference to them is collected, whenever that is
    try:
        study = kdsearch.search(SPACE, set=alone, storage=tmp_path, name="c", callbacks=[Interrupting()], **options)
        all_cpus_come_back()
    finally:
        gc.enable()
    assert study.status == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before
    assert {trial.state for trial in study.trials} == {"RUNNING"}


def all_cpus_come_back() -> None:
    """Wait until no actor of a study holds a CPU of the program's Ray."""
    import ray

    end = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < 2:
        assert time.monotonic() < end, "actors hold CPUs after the end of their study"
        time.sleep(0.2)


def test_requests_that_cannot_be_met_are_errors_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(kdsearch.UserError, match="unknown search space 'clfdd'"):
        kdsearch.search("clfdd", storage=tmp_path)
    with pytest.raises(kdsearch.UserError, match="lrr"):
        kdsearch.search(SPACE, set={"train.lrr": 1.0}, storage=tmp_path, progress="none")
    with pytest.raises(kdsearch.UserError, match="There is no study"):
        kdsearch.load_study(tmp_path)
    assert not list(tmp_path.iterdir())
