"""The pages of a study as files of its run folder, kept current while it runs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kdsearch.io.run_folder import RunFolder
from kdsearch.report.pages import write_frontier, write_pages
from kdsearch.search.callbacks import StudyCallback, StudyEnd
from kdsearch.search.trial_record import TrialRecord

PAGE_EVERY_S = 60.0
"""Least seconds between two writes while a study runs."""
PAGE_SHARE = 0.02
"""Share of a study's time that writing may take: the longer a write takes, the rarer it is."""


class PagesCallback(StudyCallback):
    """Writes `frontier.html` and `frontier.png` while the study runs, and with `report.html` at its end.

    It reads the run folder, so it comes after the callback that writes `summary.json`.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._due = 0.0

    def on_frontier(self, members: Sequence[TrialRecord], hypervolume: float) -> None:
        if members and time.monotonic() >= self._due:
            began = time.monotonic()
            try:
                write_frontier(self.run)
            finally:
                took = time.monotonic() - began
                self._due = time.monotonic() + max(PAGE_EVERY_S, took / PAGE_SHARE)

    def on_study_end(self, end: StudyEnd) -> None:
        write_pages(self.run)
