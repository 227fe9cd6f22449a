"""A study whose term comes from a module beside its space, not from the package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Start

pytestmark = pytest.mark.ray

TERM = Path(__file__).parents[2] / "examples" / "term" / "zscore_kd.py"
OWN = "distill={zscore_kd: {weight: {log: [0.3, 30], default: 9}}}"


def test_workers_train_with_a_term_of_the_users_own(start: Start, space: Path, tmp_path: Path) -> None:
    shutil.copy(TERM, tmp_path / "my_term.py")
    environment = {"KDSEARCH_PLUGINS": "my_term"}
    study = start(str(space), "--name", "own", "--trials", "2", "--set", OWN, environment=environment)
    assert study.finish() == 0, study.output
    run = tmp_path / "runs" / "own"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["versions"]["plug-ins"] == "my_term"
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow.db'}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    trials = client.search_runs(experiments, "tags.`kdsearch.trial` LIKE 't%'")
    assert any(trial.data.metrics.get("loss/zscore_kd", 0) > 0 for trial in trials)
