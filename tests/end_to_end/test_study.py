"""Whole studies, as processes on a local Ray cluster: results, deaths of workers, interruptions."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kdsearch.search.storage.reader import read_trials
from kdsearch.search.trial_record import TrialRecord, trial_record_of
from tests.end_to_end.conftest import Process, Start

pytestmark = pytest.mark.ray

TOLD = {"COMPLETE", "PRUNED", "INFEASIBLE"}


def history(run: Path, trial: str) -> list[int]:
    """Epochs of a trial that MLflow has a validation of."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow.db'}")
    runs = client.search_runs(
        [e.experiment_id for e in client.search_experiments()], f"tags.`kdsearch.trial` = '{trial}'"
    )
    assert len(runs) == 1
    return sorted({metric.step for metric in client.get_metric_history(runs[0].info.run_id, "val/miou")})


def started(process: Process) -> list[str]:
    return [line.split()[0] for line in process.lines if " starts: " in line]


def test_a_study_leaves_a_frontier_that_loads_and_every_trial_in_mlflow(
    start: Start, space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = start(str(space), "--name", "whole", "--set", "confirm.seeds=2")
    assert process.finish() == 0, process.output
    run = tmp_path / "runs" / "whole"
    trials = pd.read_parquet(run / "trials.parquet")
    frontier = pd.read_parquet(run / "frontier.parquet")
    summary = json.loads((run / "summary.json").read_text())

    search = trials[trials.stage == "search"]
    assert len(search) >= 4
    assert set(trials.state) <= TOLD
    assert search.iloc[0]["train.lr"] == 1e-3
    assert {"student.encoder", "distill.clfd.weight", "distill.dsrd.weight"} <= set(trials.columns)
    members = set(frontier.trial)
    assert members <= set(search[search.state == "COMPLETE"].trial)
    assert (frontier.sort_values("gflops").miou.diff().dropna() > 0).all()
    # Each member was repeated with other seeds, beside the same student without distillation.
    repeats, controls = trials[trials.stage == "confirm"], trials[trials.stage == "control"]
    assert len(repeats) == len(controls) == 2 * len(members)
    assert set(repeats.seed) == set(controls.seed) == {1, 2}
    assert list(frontier.seeds) == [2] * len(members)
    assert frontier.miou_mean.mean() == pytest.approx(repeats.miou.mean())
    assert frontier.gain.mean() == pytest.approx(repeats.miou.mean() - controls.miou.mean())
    assert (frontier.gain_low <= frontier.gain).all()
    assert frontier.p_frontier.between(0, 1).all()
    assert "Trained again with other seeds" in process.output

    assert summary["status"] == "done"
    assert [point["trial"] for point in summary["frontier"]] == list(frontier.trial)
    kept = {path.name for path in (run / "students").iterdir()}
    assert members < kept <= members | set(controls[controls.seed == 1].trial), "one control is kept for the report"
    assert not list((run / "checkpoints").iterdir())
    for name in ("space.yaml", "study.journal", "rungs.jsonl", "trials.parquet", "mlflow.db", "run.log",
                 "frontier.html", "tracking.json"):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    assert "mlflow ui --backend-store-uri sqlite:///" in process.output
    report = (run / "report.html").read_text()
    assert report.count("<img") == 4 * 5, "image, truth, teacher, student and control on each of the four samples"
    assert "same student alone" in report

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "kdsearch/tiny")
    runs: dict[str, Any] = {
        r.data.tags["kdsearch.trial"]: r for r in client.search_runs([experiment.experiment_id], max_results=100)
    }
    expected = set(trials[trials.state != "INFEASIBLE"].trial) | {"", "teacher"}
    assert set(runs) == expected
    parent = runs[""]
    assert parent.info.status == "FINISHED"
    for name, child in runs.items():
        if name:
            assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert child.info.status in ("FINISHED", "KILLED")
            assert "val/miou" in child.data.metrics
            assert "cost/gflops" in child.data.metrics
    assert {name for name, r in runs.items() if r.data.tags.get("kdsearch.pareto") == "true"} == members
    of = {name: r.data.tags["kdsearch.of"] for name, r in runs.items() if "kdsearch.of" in r.data.tags}
    assert set(of) == {*repeats.trial, *controls.trial}
    assert set(of.values()) == members
    for point in frontier.itertuples():
        for name in ("miou_mean", "miou_std", "gain", "p_frontier"):
            assert runs[point.trial].data.metrics[f"confirm/{name}"] == pytest.approx(getattr(point, name)), name

    from kdsearch.cli.main import main as kdsearch
    from kdsearch.models.student import load_student

    assert kdsearch(["export", str(run), "--best", "knee", "--out", str(tmp_path / "bundle")]) == 0
    exported = json.loads((tmp_path / "bundle" / "metrics.json").read_text())
    assert exported["confirm/gain"] in list(frontier.gain)
    student = load_student(tmp_path / "bundle")
    assert student.info.num_classes == 9
    assert kdsearch(["export", str(run), "--budget", "gflops<=0.000001", "--out", str(tmp_path / "none")]) == 2
    assert "The cheapest has" in capsys.readouterr().err


def test_a_killed_worker_costs_one_epoch_at_most_with_the_teachers_maps_written_once(
    start: Start, space: Path, tmp_path: Path
) -> None:
    cache = ["--set", "teacher.cache=taps"]
    process = start(
        str(space), "--name", "killed", "--max-concurrent", "1", "--trials", "2", "--set", "train.epochs=12",
        "--set", "search.stop=none", *cache,
    )  # fmt: skip
    run = tmp_path / "runs" / "killed"
    checkpoint = run / "checkpoints" / "t0000.pt"
    process.wait_for(checkpoint.exists)
    (worker,) = process.descendants("RayTrainWorker")
    os.kill(worker, signal.SIGKILL)
    assert process.finish() == 0, process.output
    (notice,) = (line for line in process.lines if "it goes on from epoch" in line)
    assert notice.startswith("t0000: the workers died")
    trials = pd.read_parquet(run / "trials.parquet")
    assert list(trials.state) == ["COMPLETE", "COMPLETE"]
    assert list(trials.epoch) == [12, 12]
    # Every epoch was validated, so none before the kill was lost; at most the one in hand was trained again.
    assert history(run, "t0000") == list(range(1, 13))
    assert history(run, "t0001") == list(range(1, 13))

    assert "teacher cache (taps): " in process.output
    (maps,) = (tmp_path / "runs" / ".cache" / "teacher-maps").iterdir()
    assert "logits" in json.loads((maps / "meta.json").read_text())["maps"]
    assert "teacher maps: 12/12 images" in (run / "run.log").read_text()
    # A damaged cache is an error before anything starts.
    (maps / "maps-00000.arrow").write_bytes(b"")
    process = start(str(space), "--name", "again", "--trials", "2", *cache)
    assert process.finish() == 2
    assert "maps-00000.arrow has 0 bytes" in process.output
    assert not (tmp_path / "runs" / "again").exists()


def test_a_study_that_ended_in_four_ways_goes_on_where_it_was(start: Start, space: Path, tmp_path: Path) -> None:
    """One study, five drivers: the first four end by SIGINT, by SIGTERM, by SIGKILL and at a file that cannot be
    written, each after one more trial."""
    settings = ("--set", "train.epochs=4", "--set", "search.stop=none", "--set", "search.trials=10")
    run = tmp_path / "runs" / "again"
    process = start(str(space), *settings, "--name", "again")
    earlier: list[dict[str, TrialRecord]] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process.wait_for_line("complete at epoch 4/4")
        process.process.send_signal(number)
        status = process.finish(60)
        if number is signal.SIGKILL:
            for pid in process.descendants(""):
                os.kill(pid, signal.SIGKILL)
        else:
            assert status == 130
            assert "Resume it with:" in process.output
            assert f"--resume --name again --storage {run.parent}" in process.output
            assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
        # The tables may lag behind a driver that is killed; the journal does not.
        records = [trial_record_of(trial) for trial in read_trials(run / "study.journal")]
        finished = {each.id: each for each in records if each is not None and each.state == "COMPLETE"}
        assert len(finished) > sum(map(len, earlier[-1:])), "each driver completes a trial of its own"
        earlier.append(finished)
        process = start(str(space), "--resume", "--name", "again")
        process.wait_for_line(" starts: ")
        assert not finished.keys() & set(started(process))
        assert "teacher" not in started(process)
    obstacle = run / "trials.parquet"
    obstacle.unlink()
    obstacle.mkdir()
    assert process.finish() == 1
    assert "The study failed: " in process.output
    assert "trials.parquet" in process.output
    assert "--resume --name again" in process.output
    assert "Traceback" not in process.output
    obstacle.rmdir()
    process = start(str(space), "--resume", "--name", "again")
    assert process.finish() == 0, process.output

    after = pd.read_parquet(run / "trials.parquet")
    search = after[after.stage == "search"]
    assert set(search.state) <= TOLD
    assert len(search[search.state == "COMPLETE"]) == 10
    for finished in earlier:
        for trial, record in finished.items():
            row = after.set_index("trial").loc[trial]
            assert (row.miou, row.epoch) == (record.miou, record.epoch)
    assert not list((run / "checkpoints").iterdir())


def test_a_study_is_extended_and_another_starts_from_what_it_found(start: Start, space: Path, tmp_path: Path) -> None:
    whole = ("--set", "search.stop=none", "--max-concurrent", "1")
    first = start(str(space), "--trials", "1", "--name", "one", *whole)
    assert first.finish() == 0, first.output
    assert "teacher complete" in first.output

    run = tmp_path / "runs" / "one"
    lower = "train.lr={log: [1e-4, 2e-3], default: 1e-3}"
    extended = start(str(space), "--resume", "--name", "one", "--trials", "2", "--set", lower)
    assert extended.finish() == 0, extended.output
    assert "the space has changed: version 2 imports 1 finished trials" in extended.output
    assert started(extended) == ["t0001"]
    trials = pd.read_parquet(run / "trials.parquet")
    assert list(trials.state) == ["COMPLETE", "COMPLETE"]
    assert trials.iloc[1]["train.lr"] <= 2e-3
    assert (run / "space-1.yaml").exists()

    warm = start(str(space), "--name", "two", "--warm-start", str(run), "--trials", "1", *whole)
    assert warm.finish() == 0, warm.output
    assert "teacher" not in started(warm), "it is trained once for all studies"
    both = pd.read_parquet(tmp_path / "runs" / "two" / "trials.parquet")
    assert len(started(warm)) == 1
    taken = both[~both.trial.isin(started(warm))]
    frontier = pd.read_parquet(run / "frontier.parquet")
    assert sorted(taken.miou) == sorted(frontier.miou), "identical trials whose students are kept are not trained again"
    assert (tmp_path / "runs" / "two" / "warm_start.json").stat().st_size > 0
