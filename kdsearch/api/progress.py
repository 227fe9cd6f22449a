"""The display of a study's progress: a live table on a terminal, one table in a notebook, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Literal

from kdsearch.search.callbacks import StudyCallback, StudyEnd, StudyInfo
from kdsearch.search.trial_record import TrialRecord

ProgressMode = Literal["auto", "console", "notebook", "none"]


def progress_callback(mode: ProgressMode | bool) -> StudyCallback | None:
    """The callback for `progress=`; `"auto"` (or True) chooses by the place where the program runs."""
    if mode in (False, "none"):
        return None
    if mode == "notebook" or (mode in (True, "auto") and _in_notebook()):
        return NotebookCallback()
    if mode == "console" or sys.stdout.isatty():
        from kdsearch.tracking.console import ConsoleCallback

        return ConsoleCallback()
    return None


def _in_notebook() -> bool:
    """Whether IPython runs this code with a front end that displays HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


class NotebookCallback(StudyCallback):
    """One table per study that updates in place, with the frontier's trials marked."""

    def __init__(self) -> None:
        from IPython.display import display

        self._trials: dict[str, TrialRecord] = {}
        self._members: set[str] = set()
        self._line = ""
        self._handle: Any = display(self, display_id=True)

    def on_study_start(self, study: StudyInfo) -> None:
        self._show(f"{study.name}: {study.path}")

    def on_message(self, text: str) -> None:
        self._show(text)

    def on_progress(self, label: str, done: int, total: int) -> None:
        self._show(f"{label}: {done} of {total}")

    def on_trial_start(self, trial: TrialRecord) -> None:
        self._trials[trial.id] = trial
        self._show()

    def on_trial_result(self, trial: TrialRecord) -> None:
        self._show()

    def on_trial_end(self, trial: TrialRecord) -> None:
        self._show()

    def on_frontier(self, members: Sequence[TrialRecord], hypervolume: float) -> None:
        self._members = {member.id for member in members}

    def on_study_end(self, end: StudyEnd) -> None:
        self._show(f"{end.status}{f': {end.failure}' if end.failure else ''}")

    def _show(self, line: str | None = None) -> None:
        self._line = self._line if line is None else line
        if self._handle is not None:
            self._handle.update(self)

    def _repr_html_(self) -> str:
        from html import escape

        rows = [
            f"<tr><td>{escape(t.id)}</td><td>{t.state}</td><td>{t.epoch}/{t.config.train.epochs}</td>"
            f"<td>{t.miou:.3f}</td><td>{t.cost.get('gflops', float('nan')):.2f}</td>"
            f"<td>{'●' if t.id in self._members else ''}</td></tr>"
            for t in list(self._trials.values())[-30:]
        ]
        head = "<tr><th>trial</th><th>state</th><th>epoch</th><th>mIoU</th><th>GFLOPs</th><th>frontier</th></tr>"
        return f"<p>{escape(self._line)}</p><table>{head}{''.join(rows)}</table>"
