from __future__ import annotations

import os
from pathlib import Path

import pytest
from rich.console import Console

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.callbacks import StudyEnd, StudyInfo
from kdsearch.search.confirm import Confirmation
from kdsearch.search.trial_record import State, TrialRecord
from kdsearch.tracking.console import ConsoleCallback


@pytest.fixture
def space() -> SearchSpace:
    return load_space("clfd", profile="demo")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder.at(str(tmp_path), "study")
    folder.create()
    return folder


def record(space: SearchSpace, number: int, state: State, epoch: int, miou: float) -> TrialRecord:
    sample = space.default()
    trial = TrialRecord(
        f"t{number:04d}", "search", state, sample.trial, dict(sample.params), {"gflops": 0.4, "params_m": 2}
    )
    trial.epoch, trial.metrics, trial.seconds = epoch, {"val/miou": miou}, 60.0
    return trial


@pytest.fixture
def view(space: SearchSpace, run: RunFolder) -> ConsoleCallback:
    view = ConsoleCallback(Console(highlight=False))
    view.on_study_start(StudyInfo("study", run.path, space))
    return view


def test_plain_lines_where_there_is_no_terminal(
    space: SearchSpace, view: ConsoleCallback, capfd: pytest.CaptureFixture[str]
) -> None:
    trial = record(space, 0, "RUNNING", 9, 0.31)
    view.on_slots(2)
    view.on_trial_start(trial)
    view.on_trial_result(trial)
    trial.state = "COMPLETE"
    view.on_frontier([trial], 0.1)
    view.on_trial_end(trial)
    view.on_study_end(StudyEnd("done", "", [trial], {}, 0.1, ["mlflow ui --backend-store-uri sqlite:///x"]))
    out = capfd.readouterr().out
    assert "\x1b" not in out
    assert "t0000 starts: pspnet resnet18, 0.40 GFLOPs" in out
    assert "t0000 complete at epoch 9/9, mIoU 0.310" in out
    assert "1 on the frontier" in out
    assert "student[pspnet].encoder=resnet18" in out
    assert "students/t0000" in out
    assert "mlflow ui --backend-store-uri sqlite:///x" in out
    assert "repeats" not in out, "nothing was confirmed"


def test_the_result_says_what_other_seeds_gave(
    space: SearchSpace, view: ConsoleCallback, capfd: pytest.CaptureFixture[str]
) -> None:
    members = [record(space, number, "COMPLETE", 9, 0.3 + number / 100) for number in range(3)]
    repeat = record(space, 7, "RUNNING", 0, float("nan"))
    repeat.id, repeat.stage, repeat.params = "conf0000", "confirm", {"of": "t0001"}
    three = Confirmation(3, 0.301, 0.004, 0.28, 0.021, 0.01, 0.016, 0.026, 0.931)
    one = Confirmation(seeds=1, miou_mean=0.31, control_miou_mean=0.32, gain=-0.01)
    view.on_slots(2)
    view.on_trial_start(repeat)
    view.on_study_end(StudyEnd("done", "", members, {"t0000": three, "t0001": one, "t0002": Confirmation()}, 0.1))
    lines = [line.strip() for line in capfd.readouterr().out.splitlines()]
    assert "conf0000 starts: pspnet resnet18, 0.40 GFLOPs; t0001 again with seed 0" in lines
    assert [line.split(maxsplit=1) for line in lines[lines.index("Trained again with other seeds") + 2 :][:3]] == [
        ["t0000", "3  0.301 ± 0.004  0.280  +0.021 ± 0.005         0.93"],
        ["t0001", "1          0.310  0.320          -0.010            -"],
        ["t0002", "0              -      -               -            -"],
    ]


def test_a_study_that_goes_on_counts_what_it_has(
    space: SearchSpace, view: ConsoleCallback, capfd: pytest.CaptureFixture[str]
) -> None:
    had = [record(space, i, state, 9, 0.3) for i, state in enumerate(("COMPLETE", "PRUNED", "INFEASIBLE", "RUNNING"))]
    had[0].origin = "another study"
    view.on_trials_restored(had)
    view.on_slots(2)
    view.on_trial_end(had[1])
    assert "(1/14 trials" in capfd.readouterr().out


def test_the_table_fits_the_screen_and_keeps_running_trials_and_the_frontier(
    space: SearchSpace, view: ConsoleCallback
) -> None:
    view.console = Console(width=100, height=20, force_terminal=True, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    members = [record(space, 0, "COMPLETE", 9, 0.4)]
    for trial in [*members, *(record(space, i, "PRUNED", 3, 0.2) for i in range(1, 60))]:
        view.on_trial_start(trial)
    running = record(space, 60, "RUNNING", 4, 0.3)
    view.on_trial_start(running)
    view.on_frontier(members, 0.1)
    view._progress = "teacher cache, images: 120 of 367"
    view.console.export_text()
    view.console.print(view._render())
    lines = view.console.export_text().splitlines()
    assert len(lines) <= 19
    assert any(line.startswith("t0000") and "●" in line for line in lines)
    assert any(line.startswith("t0060") and "running" in line and "4/9" in line for line in lines)
    assert any(line.startswith("t0059") for line in lines)
    assert not any(line.startswith("t0001") for line in lines)
    assert "60/14 trials" in lines[0]
    assert lines[0].endswith("teacher cache, images: 120 of 367")
