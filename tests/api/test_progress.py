"""The display in a notebook, with a stand-in for IPython's display."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from kdsearch.api.progress import NotebookCallback, progress_callback
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.callbacks import StudyCallback, StudyEnd, StudyInfo
from kdsearch.testing.callbacks import CallbackConformance, Make, drive
from kdsearch.testing.toy_study import toy_space
from kdsearch.tracking.console import ConsoleCallback


class Display:
    """What a notebook shows: one cell output, replaced by each update."""

    def __init__(self) -> None:
        self.outputs = 0
        self.html = ""

    def __call__(self, shown: Any, display_id: bool) -> Display:
        assert display_id, "without an id the output could not be replaced"
        self.outputs += 1
        self.update(shown)
        return self

    def update(self, shown: Any) -> None:
        self.html = shown._repr_html_()


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Display:
    found, package, module = Display(), ModuleType("IPython"), ModuleType("IPython.display")
    module.display = found  # type: ignore[attr-defined]
    shell = type("ZMQInteractiveShell", (), {})()
    package.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return found


class TestNotebook(CallbackConformance):
    @pytest.fixture
    def make(self, display: Display) -> Make:
        return lambda study: NotebookCallback()


def test_a_notebook_shows_one_table_that_is_replaced(display: Display, tmp_path: Path) -> None:
    callback = progress_callback("auto")
    assert isinstance(callback, NotebookCallback)
    run = RunFolder.at(str(tmp_path), "toy")
    run.create()
    study = StudyInfo("toy", run.path, toy_space())
    drive(callback, study)
    assert display.outputs == 1
    assert display.html.startswith("<p>done</p><table>")
    assert display.html.count("<tr>") > 5
    assert "<td>●</td>" in display.html


def test_text_is_not_markup(display: Display) -> None:
    callback = NotebookCallback()
    callback.on_message("a <b> & c")
    assert display.html.startswith("<p>a &lt;b&gt; &amp; c</p>")
    callback.on_study_end(StudyEnd("failed", "no <room>"))
    assert display.html.startswith("<p>failed: no &lt;room&gt;</p>")


@pytest.mark.parametrize(
    ("mode", "terminal", "kind"),
    [
        ("auto", False, type(None)),
        ("auto", True, ConsoleCallback),
        (True, True, ConsoleCallback),
        ("console", False, ConsoleCallback),
        ("none", True, type(None)),
        (False, True, type(None)),
    ],
)
def test_the_display_follows_the_place(
    mode: Any, terminal: bool, kind: type[StudyCallback], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: terminal, write=len, flush=lambda: None))
    callback = progress_callback(mode)
    assert type(callback) is kind
