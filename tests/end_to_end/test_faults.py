"""What goes wrong on clusters, done to a study: nothing may be lost, told twice, or waited for without end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.data.layouts import write_image, write_label
from tests.end_to_end.cluster import SETTINGS, Nodes
from tests.end_to_end.conftest import Process, Start

pytestmark = pytest.mark.ray

START_S = 30
"""Seconds within which workers must start in a study that loses a node for longer than that."""


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    """A folder whose files make epochs go wrong, see `doubles/sitecustomize.py`."""
    folder = tmp_path / "faults"
    folder.mkdir()
    return folder


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch, faults: Path) -> Iterator[Nodes]:
    for name, value in (SETTINGS | faulty(faults)).items():
        monkeypatch.setenv(name, value)
    nodes = Nodes()
    yield nodes
    nodes.shutdown()


def told(run: Path) -> Counter[str]:
    """How often each trial of the search was told an outcome, by its number."""
    entries = [json.loads(line) for line in (run / "study.journal").read_text().splitlines()]
    return Counter(str(e["trial_id"]) for e in entries if "outcome" in e.get("user_attr", {}))


def unfinished_in_mlflow(run: Path) -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return [each.data.tags["kdsearch.trial"] for each in runs if each.info.status == "RUNNING"]


def goings_on(process: Process) -> list[str]:
    return [line for line in process.lines if "it goes on from epoch" in line]


def test_a_study_lives_through_the_death_of_a_worker_of_a_node_and_of_its_driver_and_uses_a_new_node(
    nodes: Nodes, start: Start, space: Path, tmp_path: Path, faults: Path
) -> None:
    """And through a node that is away for longer than workers may take to start, a device that is poisoned, and labels
    that somebody changes meanwhile.
    """
    data = write_images(tmp_path / "images")
    (faults / "t0002-2-0").write_text("poison")
    second = nodes.add()
    run = tmp_path / "runs" / "storm"
    arguments = [
        str(space), "--name", "storm", "--address", nodes.address, "--trials", "3", "--set", "train.epochs=150",
        "--set", "search.stop=none", "--set", f"search.start_timeout={START_S}",
        "--grow-to", "2", "--data", f"folder={data}",
    ]  # fmt: skip
    process = start(*arguments)
    process.wait_for_line("2 at a time")
    both = [run / "checkpoints" / f"t000{number}.pt" for number in (0, 1)]
    process.wait_for(lambda: all(path.exists() for path in both), 240)

    (worker,) = nodes.workers(nodes.head)
    os.kill(worker, signal.SIGKILL)
    process.wait_for(lambda: len(goings_on(process)) == 1)
    nodes.kill(second)
    process.wait_for(lambda: len(goings_on(process)) == 2)
    assert {line.split(":")[0] for line in goings_on(process)} == {"t0000", "t0001"}
    assert all(int(re.findall(r"from epoch (\d+)", line)[0]) >= 1 for line in goings_on(process))

    gone = time.monotonic()
    process.wait_for_line(" waits: the cluster has no room for 1 worker(s) with 1 CPU and 0 GPU each;")
    process.wait_for(lambda: time.monotonic() - gone > START_S)
    third = nodes.add()
    process.wait_for(lambda: bool(nodes.workers(third)))

    resume = [str(space), "--name", "storm", "--address", nodes.address, "--resume"]
    for labels_change in (True, False):
        before = [path.stat().st_mtime for path in (run / "checkpoints").glob("t*.pt")]
        process.wait_for(
            lambda before=before: sum(  # type: ignore[misc]
                path.stat().st_mtime not in before for path in (run / "checkpoints").glob("t*.pt")
            ) > 0
        )  # fmt: skip
        process.process.kill()
        process.process.wait()
        if labels_change:
            one, other = (data / "labels" / "val" / f"val{i}.png" for i in (0, 1))
            swap(one, other)
            process = start(*resume)
            assert process.finish() == 2, process.output
            assert "2 changed (labels/val/val0.png, labels/val/val1.png)" in process.output
            swap(one, other)
        process = start(*resume)
        process.wait_for_line(" starts: ")
    assert process.finish(600) == 0, process.output
    assert not (faults / "t0002-2-0").exists()
    trials = pd.read_parquet(run / "trials.parquet")
    assert list(trials.trial) == ["t0000", "t0001", "t0002"]
    assert set(trials.state) == {"COMPLETE"}
    assert set(trials.epoch) == {150}
    assert set(told(run).values()) == {1}
    assert len(told(run)) == 3
    assert unfinished_in_mlflow(run) == []
    assert not list((run / "checkpoints").iterdir())


def write_images(root: Path) -> Path:
    """A data set in a folder: twelve images of train and four of val, and their labels."""
    for split, count in (("train", 12), ("val", 4)):
        for i in range(count):
            write_image(root / "images" / split / f"{split}{i}.png", i, channels=4)
            write_label(root / "labels" / split / f"{split}{i}.png", range(3), i)
    (root / "classes.yaml").write_text("classes: [road, car, person]\nchannels: 4\n")
    return root


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def faulty(faults: Path) -> dict[str, str]:
    """The environment in which the files of `faults` make epochs go wrong."""
    path = os.pathsep.join([str(Path(__file__).parent / "doubles"), str(Path(__file__).parents[2])])
    return {"KDSEARCH_TEST_FAULTS": str(faults), "PYTHONPATH": path}


def test_trials_that_hang_do_not_fit_diverge_or_cannot_be_saved(
    start: Start, space: Path, tmp_path: Path, faults: Path
) -> None:
    for name, kind in {
        "t0000-2-0": "freeze", "t0001-2-0": "always sleep", "t0002-1-0": "memory 1", "t0003-1-0": "memory 2",
        "t0004-1-0": "nan",
    }.items():  # fmt: skip
        (faults / name).write_text(kind)
    environment = faulty(faults)
    process = start(
        str(space), "--name", "faults", "--trials", "5", "--max-concurrent", "2", "--set", "train.epochs=2",
        "--set", "search.stop=none", "--set", "search.epoch_timeout=30", "--set", "search.max_failures=1",
        environment=environment,
    )  # fmt: skip
    process.wait_for(lambda: any(line.startswith("t0000") for line in goings_on(process)), 300)
    frozen = int((faults / "t0000-2-0.pid").read_text())
    process.wait_for(lambda: not Path(f"/proc/{frozen}").exists(), 30)
    assert process.finish(600) == 0, process.output

    run = tmp_path / "runs" / "faults"
    trials = pd.read_parquet(run / "trials.parquet").set_index("trial")
    # One that does not fit takes none of the five slots.
    assert dict(trials.state) == {
        "t0000": "COMPLETE", "t0001": "FAIL", "t0002": "COMPLETE", "t0003": "INFEASIBLE", "t0004": "FAIL",
        "t0005": "COMPLETE",
    }  # fmt: skip
    hung = "the workers hung: epoch 2 took more than 30 s (search.epoch_timeout)"
    assert {line.split("; ")[0] for line in goings_on(process)} == {f"t0000: {hung}", f"t0001: {hung}"}
    assert all("it goes on from epoch 1" in line for line in goings_on(process))
    assert trials.reason["t0001"] == hung
    assert trials.reason["t0003"].startswith("out of device memory at batch size 4")
    assert trials.reason["t0004"].startswith("loss/")
    assert trials.reason["t0004"].endswith("is not finite at step 1 of epoch 1")

    # A disk that is full ends the study, since no trial could be saved, and costs it nothing. What failed is asked
    # again.
    (faults / "t0001-2-0").unlink()
    (faults / "t0006-2-0").write_text("disk")
    resume = [str(space), "--name", "faults", "--resume"]
    process = start(*resume, "--trials", "6", environment=environment)
    assert process.finish(600) == 1
    assert "asked again, since they failed: t0001, t0004" in process.output
    assert f"t0006.pt could not be written to {run / 'checkpoints'}, where" in process.output
    assert "make room or mend it, then go on" in process.output
    assert "t0006.pt" in [path.name for path in (run / "checkpoints").iterdir()]
    process = start(*resume, environment=environment)
    assert process.finish(600) == 0, process.output
    after = pd.read_parquet(run / "trials.parquet").set_index("trial")
    assert after.state["t0003"] == "INFEASIBLE"
    assert set(after.state.drop("t0003")) == {"COMPLETE"}
    assert len(after) == 7
    assert set(told(run).values()) == {1}
    assert unfinished_in_mlflow(run) == []


def test_what_goes_wrong_on_one_rank_of_two_ends_both(start: Start, space: Path, tmp_path: Path, faults: Path) -> None:
    (faults / "t0000-2-1").write_text("freeze")
    (faults / "t0001-1-1").write_text("memory 1")
    process = start(
        str(space), "--name", "ranks", "--trials", "2", "--workers-per-trial", "2", "--set", "train.epochs=2",
        "--set", "search.stop=none", "--set", "search.epoch_timeout=30", "--set", "search.max_failures=1",
        environment=faulty(faults),
    )  # fmt: skip
    assert process.finish(600) == 0, process.output
    trials = pd.read_parquet(tmp_path / "runs" / "ranks" / "trials.parquet").set_index("trial")
    assert dict(trials.state) == {"t0000": "COMPLETE", "t0001": "INFEASIBLE", "t0002": "COMPLETE"}
    (line,) = goings_on(process)
    assert line.startswith("t0000: the workers hung: epoch 2 took more than 30 s (search.epoch_timeout)")
    assert trials.reason["t0001"].startswith("out of device memory at batch size 4")


PLACES = """
import os, signal, sys, time
import ray
from kdsearch.engine.cluster import connected
from kdsearch.engine.messages import Placement, TrialJob
from kdsearch.engine.worker_group import NoPlaceError, WorkerGroup, WorkersDiedError
from tests.end_to_end.conftest import descendants

@ray.remote(num_cpus=2)
class Other:
    def here(self): return True

with connected(None):
    cpus = ray.cluster_resources()["CPU"]
    other = [Other.options(num_cpus=cpus).remote()]
    ray.get(other[0].here.remote())
    nothing = TrialJob("t", "{}", sys.argv[1], None, "", "")
    group = WorkerGroup(Placement(), sys.argv[1], 30)
    try:
        group.start(nothing, 5)
    except NoPlaceError as error:
        print("refused:", str(error).splitlines()[0])
    group.stop()
    ray.kill(other[0])

    group = WorkerGroup(Placement(), sys.argv[1], 300)
    group.wait_until_up()
    print("up:", len(group.nodes))
    (controller,) = [pid for pid, title in descendants(os.getpid()) if "ray::TrainController" in title]
    os.kill(controller, signal.SIGKILL)
    try:
        while True:  # its rank may live, and answer, for a moment
            group.train_epoch(1, 60)
    except WorkersDiedError as error:
        print("died:", str(error).splitlines()[0])
    group.stop()
    end = time.monotonic() + 60
    while ray.available_resources().get("CPU") != cpus and time.monotonic() < end:
        time.sleep(0.5)
    print("free:", ray.available_resources().get("CPU") == cpus)
"""


def test_a_group_without_a_place_gives_up_and_a_killed_controller_keeps_none(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", PLACES, str(tmp_path)], cwd=Path(__file__).parents[2], capture_output=True, text=True,
        timeout=300, check=False, env=os.environ | {"RAY_worker_niceness": "0"},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    said = dict(line.split(": ", 1) for line in answer.stdout.splitlines() if ": " in line)
    assert "1 worker(s) with 1 CPU and 0 GPU each" in said["refused"]
    assert said["up"] == "1"
    assert "the workers died" in said["died"]
    assert said["free"] == "True"
