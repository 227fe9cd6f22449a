"""Students in MLflow's registry: aliases lead to students that load, and export takes them by any of their names."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from kdsearch.cli.main import main
from kdsearch.config.space.search_space import load_space
from kdsearch.data.store.store import Store
from kdsearch.io.run_folder import RunFolder
from kdsearch.models.student import load_student, read_trial
from kdsearch.search.callbacks import StudyEnd
from kdsearch.search.summary import FrontierPoint
from kdsearch.search.trial_record import TrialRecord
from kdsearch.tracking.mlflow.callback import MLflowCallback
from kdsearch.tracking.mlflow.model_registry import aliases, register, round_up
from tests.conftest import config
from tests.export.cases import POINT, run_folder, summary
from tests.tracking.mlflow.test_writer import end_server, lost, serve

SMALL: dict[str, Any] = POINT | {"trial": "t0003", "miou": 0.4, "gflops": 0.0612}
MIDDLE: dict[str, Any] = POINT | {"trial": "t0001", "miou": 0.58, "gflops": 0.2}
LARGE: dict[str, Any] = POINT | {"trial": "t0002", "miou": 0.6, "gflops": 1.234}


def points(*members: dict[str, Any]) -> list[FrontierPoint]:
    return [FrontierPoint(**member) for member in members]


def export(arguments: list[str]) -> int:
    return main(["export", *arguments])


def test_an_alias_for_the_best_the_knee_and_each_budget() -> None:
    assert aliases(points(SMALL, MIDDLE, LARGE)) == {
        "best-miou": "t0002", "knee": "t0001", "mflops-le-62": "t0003", "mflops-le-200": "t0001",
        "mflops-le-1300": "t0002",
    }  # fmt: skip
    # With every member confirmed, the mean over seeds decides; a dearer member may then be no better.
    means = ((SMALL, 0.3), (MIDDLE, 0.55), (LARGE, 0.5))
    confirmed = points(*(point | {"miou_mean": mean} for point, mean in means))
    found = aliases(confirmed)
    assert found["best-miou"] == found["mflops-le-1300"] == "t0001"
    assert aliases([]) == {}


@pytest.mark.parametrize(("number", "rounded"), [(0.01, 1), (5, 5), (61.2, 62), (100, 100), (101, 110), (12345, 13000)])
def test_budgets_are_rounded_up_to_two_digits(number: float, rounded: int) -> None:
    assert round_up(number) == rounded >= number


@pytest.mark.slow
def test_export_takes_a_study_a_trial_and_a_registered_model(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    frontier = points(SMALL, LARGE)
    run = run_folder(tmp_path, store, SMALL, LARGE, trial=config(train={"epochs": 3, "seed": 7}))
    experiment = client.create_experiment("kdsearch/tiny", artifact_location=(tmp_path / "artifacts").as_uri())
    parent = client.create_run(experiment, tags={"kdsearch.study": "run", "kdsearch.trial": ""}).info.run_id
    client.log_artifact(parent, str(run / "summary.json"))
    runs = {}
    for point in frontier:
        tags = {"kdsearch.study": "run", "kdsearch.trial": point.trial, "mlflow.parentRunId": parent}
        runs[point.trial] = client.create_run(experiment, tags=tags).info.run_id
        client.log_artifacts(runs[point.trial], str(run / "students" / point.trial), "student")
    for _ in range(2):  # a resumed study registers again
        register(client, "run", frontier, runs)
    assert len(client.search_model_versions("name = 'run'")) == 2
    register(client, "run", frontier[:1], runs)
    assert set(client.get_registered_model("run").aliases) == {"best-miou", "knee", "mflops-le-62"}
    register(client, "run", frontier, runs)

    def exported(name: str, *arguments: str) -> str:
        out = tmp_path / "out" / name.replace("/", "_")
        assert export([name, "--tracking-uri", uri, "--out", str(out), *arguments]) == 0
        load_student(out)
        assert read_trial(out).train.seed == 7
        return (out / "README.md").read_text()

    assert f"| trial | t0002, from MLflow run {runs['t0002']} |" in exported(f"runs:/{parent}")
    assert "t0003, from" in exported(f"runs:/{parent}/", "--budget", "gflops<=0.5")
    assert "t0003, from" in exported(f"runs:/{runs['t0003']}")
    assert "t0002, from" in exported("models:/run@best-miou")
    assert "t0003, from" in exported("models:/run@mflops-le-62")
    assert "t0003, from" in exported("models:/run/1")
    capsys.readouterr()
    foreign = client.create_run(experiment).info.run_id
    lost = client.create_run(experiment, tags={"kdsearch.trial": "t0009", "mlflow.parentRunId": parent}).info.run_id
    for name, arguments, message in [
        ("models:/run@best", [], "models:/run@best cannot be read"),
        ("models:/other/1", [], "models:/other/1 cannot be read"),
        (f"runs:/{'0' * 32}", [], "cannot be read"),
        (f"runs:/{foreign}", [], "is not a run of kdsearch"),
        (f"runs:/{lost}", [], "The trial t0009 is not on the frontier"),
        ("models:/run@knee", ["--best", "miou"], "names one student; leave --best and --budget out"),
    ]:
        assert export([name, "--tracking-uri", uri, "--out", str(tmp_path / "none"), *arguments]) == 2
        assert message in capsys.readouterr().err
    # A server that serves an odd summary chooses no path.
    (tmp_path / "summary.json").write_text(summary(POINT | {"trial": "../../t0002"}))
    client.log_artifact(parent, str(tmp_path / "summary.json"))
    assert export([f"runs:/{parent}", "--tracking-uri", uri, "--out", str(tmp_path / "none")]) == 2
    assert "'../../t0002' is no trial's name" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_finished_study_is_registered_on_its_server(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/mlflow.db")  # the URI that is given counts alone
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    run = RunFolder.at(str(tmp_path), "run")
    run.create()
    run_folder(tmp_path, store, POINT)
    trial = TrialRecord("t0000", "search", "COMPLETE", config(), {}, {"gflops": 0.1}, 1, {"val/miou": 0.5})
    said: list[str] = []
    server = serve(port, tmp_path)
    try:
        with MLflowCallback(uri, load_space("clfd", profile="demo"), run, said.append) as tracker:
            tracker.begin(store)
            tracker.on_trial_start(trial)
            tracker.on_trial_end(trial)
            tracker.on_study_end(StudyEnd("done"))
        assert not lost(said)
        for alias in ("best-miou", "knee", "mflops-le-100"):
            out = tmp_path / alias
            assert export([f"models:/run@{alias}", "--tracking-uri", uri, "--out", str(out)]) == 0
            load_student(out)
    finally:
        end_server(server)


def test_a_study_that_measured_latency_has_an_alias_for_each_latency() -> None:
    found = aliases(
        points(
            POINT | {"trial": "t0", "miou": 0.4, "gflops": 5.0, "latency_ms": 2.0},
            POINT | {"trial": "t1", "miou": 0.6, "gflops": 4.0, "latency_ms": 3.0},
            POINT | {"trial": "t2", "miou": 0.7, "gflops": 1.0, "latency_ms": 20.0},
        ),
        "latency_ms",
    )
    assert found["knee"] == "t1"
    assert {name: trial for name, trial in found.items() if name.startswith("us-")} == {
        "us-le-2000": "t0", "us-le-3000": "t1", "us-le-20000": "t2",
    }  # fmt: skip
