"""The shipped methods as a user starts them, on the smallest of scenes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.end_to_end.conftest import Start

pytestmark = pytest.mark.ray

TINY = [
    argument
    for setting in (
        "data.options={train: 8, val: 4, height: 64, width: 96}", "train.epochs=1", "teacher.train.epochs=1",
        "train.batch_size=4", "search.rungs=[]",
    )
    for argument in ("--set", setting)
]  # fmt: skip


def test_the_method_itself_is_searched(start: Start, tmp_path: Path) -> None:
    process = start("methods", "--name", "all", "--trials", "12", "--max-concurrent", "1", *TINY)
    assert process.finish() == 0, process.output
    assert "running the demo profile on built-in scenes" in process.output
    trials = pd.read_parquet(tmp_path / "runs" / "all" / "trials.parquet")
    assert set(trials.state) == {"COMPLETE"}
    terms = {column.split(".")[1] for column in trials.columns if column.startswith("distill.")}
    assert len(terms) >= 6
    one = trials[trials["distill.kd.weight"].notna()]
    assert 0 < len(one) < len(trials)  # conditional settings exist where their method was taken, and nowhere else


def test_frames_opponents_and_fusions_in_a_study(start: Start, tmp_path: Path) -> None:
    process = start("stc", "--name", "video", "--trials", "3", "--max-concurrent", "1", *TINY)
    assert process.finish() == 0, process.output
    run = tmp_path / "runs" / "video"
    trials = pd.read_parquet(run / "trials.parquet")
    assert set(trials.state) == {"COMPLETE"}
    assert "teacher.fuse" in trials.columns

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "kdsearch/stc")
    (first,) = client.search_runs([experiment.experiment_id], "tags.`kdsearch.trial` = 't0000'")
    (teacher,) = client.search_runs([experiment.experiment_id], "tags.`kdsearch.trial` = 'teacher'")
    assert teacher.info.run_name.startswith("teacher two_branch ")
    assert {"loss/stc_motion", "loss/adversarial_opponent", "val/temporal_consistency"} <= first.data.metrics.keys()
