"""A study of mIoU against latency, as a process: measured before training, kept on resuming, told everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.end_to_end.conftest import Start

pytestmark = pytest.mark.ray


def test_latency_is_measured_once_and_is_the_frontiers_cost(start: Start, space: Path, tmp_path: Path) -> None:
    short = ("--set", "train.epochs=1", "--set", "teacher.train.epochs=1", "--set", "search.rungs=[]")
    process = start(str(space), "--name", "timed", "--latency", "cpu", "--trials", "2", "--max-concurrent", "1", *short)
    assert process.finish() == 0, process.output
    assert process.output.index("latency on") < process.output.index("teacher starts")
    run = tmp_path / "runs" / "timed"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["objectives"] == {"miou": "max", "latency_ms": "min"}
    measured = json.loads((run / "latency.json").read_text())["networks"]
    assert len(measured) == 4, "three students and the teacher"
    assert len(summary["latency"]["students"]) == 3
    assert -1 <= summary["latency"]["spearman"] <= 1
    assert summary["reference"]["latency_ms"] > 0
    trials = pd.read_parquet(run / "trials.parquet")
    assert set(trials.latency_ms) <= {each["ms"] for each in measured.values()}
    report, page = (run / "report.html").read_text(), (run / "frontier.html").read_text()
    assert "Latency and FLOPs" in report
    assert "latency per image (ms)" in report
    assert '<option value="latency_ms" selected>' in page

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "kdsearch/tiny")
    runs = client.search_runs([experiment.experiment_id], "tags.`kdsearch.stage` = 'search'")
    logged = {r.data.tags["kdsearch.trial"]: r.data.metrics["cost/latency_ms"] for r in runs}
    assert logged == dict(zip(trials.trial, trials.latency_ms, strict=True))

    process = start(str(space), "--name", "timed", "--resume", "--trials", "3")
    assert process.finish() == 0, process.output
    assert json.loads((run / "latency.json").read_text())["networks"] == measured
    again = pd.read_parquet(run / "trials.parquet").set_index("trial")
    assert again.latency_ms[trials.trial].tolist() == trials.latency_ms.tolist()


def test_a_device_that_the_cluster_has_not_is_one_sentence(start: Start, space: Path, tmp_path: Path) -> None:
    process = start(str(space), "--name", "none", "--latency", "cuda", environment={"CUDA_VISIBLE_DEVICES": ""})
    assert process.finish() == 2, process.output
    assert "no node of the cluster has a GPU" in process.lines[-1]
    assert not (tmp_path / "runs" / "none").exists()
