"""Files as an attacker would make them. Whatever reads them must end in one sentence and run nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdsearch.cli.main import main

Refused = Callable[..., str]

SPACE = """
name: tiny
data: {name: scenes, size: [32, 64], options: {train: 2, val: 1, height: 32, width: 64}}
teacher: {arch: fpn, encoder: tu-mobilenetv3_small_050, train: {epochs: 1, batch_size: 2}}
student: {arch: fpn, encoder: {choice: [tu-mobilenetv3_small_050, mobilenet_v2]}}
distill: {kd: {weight: {log: [0.1, 10], default: 1}}}
train: {epochs: 2, batch_size: 2}
search: {trials: 1, rungs: [1]}
"""


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)

    @property
    def sprung(self) -> bool:
        return self.path.exists()


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    """A trap, and the proof that it did not spring."""
    trap = Trap(tmp_path / "this code was run")
    yield trap
    assert not trap.sprung


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run `kdsearch` with arguments that it must refuse; the sentence that it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def refused(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        said = capfd.readouterr()
        assert "Traceback" not in said.out + said.err
        _, found, sentence = said.err.partition("kdsearch: ")
        assert found
        return sentence

    return refused


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SPACE)
    return path
