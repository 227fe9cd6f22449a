"""`ray job submit --working-dir . -- python -m kdsearch.run ...` against a local cluster with authentication."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import descendants, kill_all

pytestmark = pytest.mark.ray

REPOSITORY = Path(__file__).parents[2]
TERM = REPOSITORY / "examples" / "term" / "zscore_kd.py"
OWN = "distill={zscore_kd: {weight: {log: [0.3, 30], default: 9}}}"
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A head node of its own; yields the environment in which `ray job` reaches it."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef")
    # Ports of its own throughout: with the defaults, a second Ray on this machine leaves it without an agent for jobs.
    port, dashboard, agent = free_port(), free_port(), free_port()
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_worker_niceness": "0"}
    head = subprocess.Popen(
        [
            RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={port}", f"--dashboard-port={dashboard}",
            "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1", "--include-dashboard=true",
            f"--dashboard-agent-listen-port={agent}",
        ],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", dashboard)) == 0:
                    break
            assert head.poll() is None, head.stdout.read() if head.stdout else ""
            time.sleep(0.3)
        yield environment | {"RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    finally:
        # Workers have process groups of their own: no signal to the head's group reaches them.
        kill_all([head.pid, *(pid for pid, _ in descendants(head.pid))])
        head.wait()


@pytest.fixture
def working_dir(tmp_path: Path) -> Path:
    """What a user submits: a checkout, here without what Git ignores, and a term of their own beside it."""
    folder = tmp_path / "checkout"
    shutil.copytree(REPOSITORY / "kdsearch", folder / "kdsearch", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "search_spaces", folder / "search_spaces")
    shutil.copy(TERM, folder / "my_term.py")
    return folder


def submit(cluster: dict[str, str], working_dir: Path, *arguments: str) -> tuple[int, str]:
    job = ["env", "KDSEARCH_PLUGINS=my_term", sys.executable, "-m", "kdsearch.run", *arguments]
    end = time.monotonic() + 120
    while True:
        answer = subprocess.run(
            [RAY, "job", "submit", "--working-dir", str(working_dir), "--", *job],
            env=cluster, capture_output=True, text=True, timeout=300, check=False, cwd=working_dir,
        )  # fmt: skip
        # The dashboard answers before the agent that starts jobs is there.
        if "No available agent" not in answer.stderr or time.monotonic() > end:
            break
        time.sleep(2)
    return answer.returncode, answer.stdout + answer.stderr


def test_a_job_trains_with_a_term_of_the_users_own_and_its_exit_status_follows_the_study(
    cluster: dict[str, str], working_dir: Path, space: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "shared"
    status, output = submit(
        cluster, working_dir, str(space), "--trials", "2", "--name", "job", "--storage", str(storage), "--set", OWN
    )
    assert status == 0, output
    assert "Frontier" in output
    run = storage / "job"
    assert list((run / "students").iterdir())
    assert json.loads((run / "summary.json").read_text())["versions"]["plug-ins"] == "my_term"
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow.db'}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    trials = client.search_runs(experiments, "tags.`kdsearch.trial` LIKE 't%'")
    assert any(trial.data.metrics.get("loss/zscore_kd", 0) > 0 for trial in trials)

    status, output = submit(cluster, working_dir, str(space), "--name", "bad", "--set", "train.epoch=2")
    assert status != 0
    assert "train.epoch: unknown key. Did you mean 'epochs'?" in output
