"""The terminal of `kdsearch run`: the display on it, all other output in the log of the run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kdsearch.cli.terminal import TerminalCallback
from kdsearch.config.space.search_space import load_space
from kdsearch.search.callbacks import StudyInfo


def test_output_of_libraries_goes_to_the_log_and_the_display_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    terminal = TerminalCallback()
    terminal.on_study_start(StudyInfo("study", tmp_path, load_space("clfd", profile="demo")))
    os.write(1, b"output of a library\n")
    os.write(2, b"and its errors\n")
    terminal.on_message("a message")
    terminal.restore()
    print("after")
    out, err = capfd.readouterr()
    assert "a message" in out
    assert "after" in out
    assert str(tmp_path / "run.log") in out
    assert "output of a library" not in out + err
    assert (tmp_path / "run.log").read_text() == "output of a library\nand its errors\n"
