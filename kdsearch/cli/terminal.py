"""The terminal of a command that runs a study: the display on it, and all other output in the log of the run."""

from __future__ import annotations

import os
import sys

from rich.console import Console

from kdsearch.search.callbacks import StudyInfo
from kdsearch.tracking.console import ConsoleCallback


class TerminalCallback(ConsoleCallback):
    """A `ConsoleCallback` that owns the terminal.

    From the start of the study until `close`, everything else that this process and its libraries print (Ray, Tune,
    warnings, tracebacks) goes to the log of the run, at the level of file descriptors, so that it does not tear the
    table. Only the command line does so; the library leaves the descriptors alone.
    """

    def __init__(self) -> None:
        _flush()
        self._saved = [os.dup(1), os.dup(2)]
        self._redirected = False
        super().__init__(Console(file=os.fdopen(os.dup(1), "w", encoding="utf-8"), highlight=False))

    def on_study_start(self, study: StudyInfo) -> None:
        log = os.open(study.path / "run.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        _flush()
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        self._redirected = True
        super().on_study_start(study)

    def restore(self) -> None:
        """Give the descriptors back; called once, when the command has ended."""
        self.close()
        _flush()
        for target, saved in zip((1, 2), self._saved, strict=True):
            if self._redirected:
                os.dup2(saved, target)
            os.close(saved)
        self.console.file.close()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
