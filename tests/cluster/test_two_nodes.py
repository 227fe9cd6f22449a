"""A study on two Ray nodes, submitted through the Jobs API with a token, tracked by an MLflow server on PostgreSQL."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import pytest

from ..end_to_end.conftest import SPACE
from .conftest import REPOSITORY
from .services import mlflow_server, postgresql, two_nodes

pytestmark = [pytest.mark.slow, pytest.mark.ray]

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def working_dir(tmp_path: Path) -> Path:
    """What is sent with the job: kdsearch and a space, nothing else."""
    folder = tmp_path / "checkout"
    shutil.copytree(REPOSITORY / "kdsearch", folder / "kdsearch", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tiny.yaml").write_text(SPACE)
    return folder


def test_a_trial_spans_two_nodes_and_the_server_has_every_result(tmp_path: Path, working_dir: Path) -> None:
    """Each trial has two ranks and each node one CPU, so every trial lies on both."""
    from ray.job_submission import JobStatus, JobSubmissionClient

    token = tmp_path / "token"
    token.write_text(TOKEN)
    storage = tmp_path / "shared"
    with (
        postgresql(tmp_path) as database,
        mlflow_server(database, tmp_path) as server,
        two_nodes(token, tmp_path) as dashboard,
    ):
        with pytest.raises(Exception, match=r"(?i)unauthorized|authentication|forbidden|invalid"):
            JobSubmissionClient(dashboard, headers={"Authorization": "Bearer wrong"}).list_jobs()

        client = JobSubmissionClient(dashboard, headers={"Authorization": f"Bearer {TOKEN}"})
        study = (
            f"{sys.executable} -m kdsearch.run tiny.yaml --name two-nodes --storage {storage} --tracking-uri {server} "
            "--workers-per-trial 2 --trials 2 --no-confirm --set train.epochs=2"
        )
        job = submitted(client, study, working_dir)
        seen = []
        limit = time.monotonic() + 480
        while not (status := client.get_job_status(job)).is_terminal():
            seen.append(status)
            assert time.monotonic() < limit, client.get_job_logs(job)
            time.sleep(0.5)
        output = client.get_job_logs(job)
        assert status == JobStatus.SUCCEEDED, output
        assert JobStatus.RUNNING in seen
        assert "Frontier" in output
        assert TOKEN not in output

        assert_results_are_in(server, database)
    assert list((storage / "two-nodes" / "students").glob("*/model.safetensors"))


def submitted(client: object, entrypoint: str, working_dir: Path) -> str:
    """The job's id. The dashboard answers before the agent that starts jobs is there."""
    end = time.monotonic() + 120
    while True:
        try:
            job: str = client.submit_job(entrypoint=entrypoint, runtime_env={"working_dir": str(working_dir)})  # type: ignore[attr-defined]
            return job
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(1)


def assert_results_are_in(server: str, database: str) -> None:
    import sqlalchemy
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name("kdsearch/tiny")
    assert experiment is not None
    runs = {run.data.tags["kdsearch.trial"]: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"", "teacher", "t0000", "t0001"}
    parent = runs.pop("")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["frontier/size"] >= 1
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    complete = {name: run for name, run in runs.items() if run.info.status == "FINISHED"}
    assert "teacher" in complete
    assert len(complete) >= 2
    for run in complete.values():
        assert [point.step for point in client.get_metric_history(run.info.run_id, "val/miou")] == [1, 2]
    assert "frontier.parquet" in {entry.path for entry in client.list_artifacts(parent.info.run_id)}

    with sqlalchemy.create_engine(database).connect() as connection:
        assert connection.execute(sqlalchemy.text("select count(*) from runs")).scalar() == 4
