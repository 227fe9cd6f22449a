from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kdsearch.cli.main import main
from kdsearch.errors import UserError
from kdsearch.io import locks as lock
from kdsearch.search.storage.listing import list_runs

SUMMARY: dict[str, Any] = {
    "space": "clfd", "status": "done", "searched": 30, "asked": 100, "hypervolume": 1.29, "trials": {"COMPLETE": 9},
    "frontier": [
        {"trial": "t0001", "miou": 0.40, "gflops": 0.1, "params_m": 1.0},
        {"trial": "t0002", "miou": 0.42, "gflops": 0.2, "params_m": 1.0},
    ],
}  # fmt: skip
DRIVER = """
import sys, time
from kdsearch.io.locks import hold
handle = hold(__import__("pathlib").Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def make(storage: Path, name: str, age: float = 0.0, **changes: Any) -> Path:
    """A run folder whose study began `age` seconds ago."""
    folder = storage / name
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(SUMMARY | changes))
    (folder / "study.lock").touch()
    os.utime(folder / "study.lock", (time.time() - age,) * 2)
    return folder


def test_runs_are_listed_newest_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "old", age=3 * 86400)
    make(tmp_path, "new", age=30, status="failed", frontier=[], searched=7)
    make(tmp_path, "between", age=5 * 3600, status="interrupted")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes.txt").write_text("")
    assert main(["runs", "--storage", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()] == [
        ["RUN", "SPACE", "STATUS", "TRIALS", "POINTS", "MIOU", "VOLUME", "AGE"],
        ["new", "clfd", "failed", "7/100", "0", "-", "1.29", "30", "s"],
        ["between", "clfd", "interrupted", "30/100", "2", "0.420", "1.29", "5", "h"],
        ["old", "clfd", "done", "30/100", "2", "0.420", "1.29", "3", "d"],
    ]
    assert err == ""


def test_the_json_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path, "one", age=60)
    assert main(["runs", "--json", "--storage", str(tmp_path)]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert run.pop("started") == pytest.approx(time.time() - 60, abs=30)
    assert run.pop("updated") == folder.joinpath("summary.json").stat().st_mtime
    assert run == {
        "name": "one", "path": str(folder), "status": "done", "space": "clfd", "trials": 30, "asked": 100,
        "frontier": 2, "best_miou": 0.42, "hypervolume": 1.29, "problem": None,
    }  # fmt: skip


@pytest.mark.parametrize("has_summary", [True, False])
def test_a_study_runs_as_long_as_its_driver_lives(has_summary: bool, tmp_path: Path) -> None:
    folder = make(tmp_path, "one", status="running")
    (folder / "study.journal").touch()
    if not has_summary:
        (folder / "summary.json").unlink()
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, folder / "study.lock"], stdout=subprocess.PIPE)
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"held\n"
        assert [run.status for run in list_runs(str(tmp_path))] == ["running"]
        with pytest.raises(UserError, match="Another process is running the study"):
            lock.hold(folder / "study.lock")
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert [run.status for run in list_runs(str(tmp_path))] == ["interrupted"]


def test_a_driver_that_starts_while_somebody_looks_is_not_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.lock"
    path.touch()
    looking = os.open(path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.1, os.close, [looking]).start()
    os.close(lock.hold(path))


DAMAGED = {
    "empty": "", "cut off": '{"space": "clfd", "sta', "a list": "[]", "nested": "[" * 100_000, "bytes": "\udcff\udcfe",
    "no frontier": json.dumps({**SUMMARY, "frontier": None}), "odd members": json.dumps({**SUMMARY, "frontier": [1]}),
    "odd miou": json.dumps({**SUMMARY, "frontier": [{**SUMMARY["frontier"][0], "miou": "high"}]}),
    "odd status": json.dumps({**SUMMARY, "status": "\x1b[2J"}), "odd count": json.dumps({**SUMMARY, "searched": "7"}),
}  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_run_is_listed_as_such(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "sound", age=100)
    make(tmp_path, "hurt").joinpath("summary.json").write_text(text, errors="surrogateescape")
    assert main(["runs", "--storage", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split()[:4] == ["hurt", "-", "damaged", "-"]
    assert out.splitlines()[2].split()[:3] == ["sound", "clfd", "done"]
    assert err.startswith("kdsearch: hurt is damaged: summary.json: ")
    assert err.count("\n") == 1
    assert "\x1b" not in out + err


def test_a_summary_that_is_no_file_is_damage(tmp_path: Path) -> None:
    folder = make(tmp_path, "hurt")
    (folder / "summary.json").unlink()
    (folder / "summary.json").mkdir()
    (run,) = list_runs(str(tmp_path))
    assert (run.status, run.problem) == ("damaged", "summary.json: Is a directory")


def test_names_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "\x1b[31mred\n", space="\x1b]0;title\x07")
    assert main(["runs", "--storage", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("\n") == 2
    assert "\\x1b[31mred\\n" in out


def test_a_storage_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--storage", str(tmp_path / "nowhere")]) == 2
    assert "name the folder of the runs with --storage" in capsys.readouterr().err
    assert main(["runs", "--storage", "s3://bucket/runs"]) == 2


def test_listing_loads_nothing_heavy(tmp_path: Path) -> None:
    make(tmp_path, "one")
    code = (
        "import sys\nfrom kdsearch.cli.main import main\n"
        f"main(['runs', '--storage', {str(tmp_path)!r}])\n"
        "print(sorted({'torch', 'ray', 'optuna', 'mlflow', 'pandas', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[1].startswith("one ")
    assert answer.stdout.splitlines()[-1] == "[]"
