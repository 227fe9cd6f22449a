"""Runs kdsearch as a user does: as a process, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

SPACE = """
name: tiny
data:
  name: scenes
  size: [32, 64]
  options: {train: 12, val: 4, height: 32, width: 64}
teacher: {arch: clnet, encoder: mit_b0, width: 8, steps: 2, train: {epochs: 2, batch_size: 4, lr: 1e-3}}
student:
  one_of:
    - {arch: fpn, encoder: {choice: [tu-mobilenetv3_small_050, mobilenet_v2]}}
    - {arch: pspnet, encoder: mobilenet_v2}
distill:
  dsrd: {weight: {log: [0.03, 10], default: 1}}
  clfd: {weight: {log: [0.03, 3], default: 1}}
train: {lr: {log: [1e-4, 1e-2], default: 1e-3}, epochs: 3, batch_size: 4}
search: {trials: 4, rungs: [1], stop: pareto, reduction: 2}
"""


def descendants(root: int) -> list[tuple[int, str]]:
    """Processes below `root`, parents first, with their titles."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                titles[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
            except (FileNotFoundError, ProcessLookupError):
                continue
    found, frontier = [], {root}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier}
        found += [(pid, titles[pid]) for pid in sorted(frontier)]
    return found


def kill_all(pids: Collection[int]) -> None:
    """Kill those of the processes that are still there, and wait until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    limit = time.monotonic() + 30
    while any(_is_there(pid) for pid in pids):
        assert time.monotonic() < limit, f"of {pids} some are still there"
        time.sleep(0.1)


def _is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class Process:
    """A running `python -m kdsearch.run ...` whose output can be waited for while it runs."""

    def __init__(self, arguments: list[str], folder: Path, environment: dict[str, str] | None = None) -> None:
        inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        # Ray gives its workers niceness 15: anything else that runs here would hold the study up for minutes.
        ours = {"COLUMNS": "200", "PYTHONFAULTHANDLER": "1", "RAY_worker_niceness": "0"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kdsearch.run", *arguments], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=inherited | ours | (environment or {}),
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 300) -> None:
        """Wait until `condition()` holds; fail with the output if the process ends or time runs out first."""
        end = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output}"
            assert time.monotonic() < end, f"nothing happened for {timeout} s:\n{self.output}"
            time.sleep(0.05)

    def wait_for_line(self, text: str, timeout: float = 300) -> None:
        self.wait_for(lambda: text in self.output, timeout)

    def finish(self, timeout: float = 300) -> int:
        """Wait for the end; if it does not come, fail with the output and with what every thread was doing."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            below = "\n".join(f"{pid} {title[:150]}" for pid, title in descendants(self.process.pid))
            self.process.send_signal(signal.SIGABRT)  # PYTHONFAULTHANDLER writes all stacks
            self.process.wait(60)
            self._reader.join(timeout=10)
            raise AssertionError(f"still running after {timeout} s, with\n{below}\n{self.output}") from None
        self._reader.join(timeout=10)
        return status

    def descendants(self, name: str) -> list[int]:
        """Processes below this one whose title contains `name`."""
        return [pid for pid, title in descendants(self.process.pid) if name in title]

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


Start = Callable[..., Process]


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a study in `tmp_path`; whatever still runs at the end of the test is ended."""
    started: list[Process] = []

    def start(*arguments: str, environment: dict[str, str] | None = None) -> Process:
        started.append(Process(list(arguments), tmp_path, environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
