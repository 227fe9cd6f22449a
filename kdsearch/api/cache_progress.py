"""Reports the progress of the teacher cache while workers write it."""

from __future__ import annotations

import time
from collections.abc import Callable

from kdsearch.search.callbacks import StudyCallback

EVERY_S = 1.0
"""Least seconds between two reports."""
LABEL = "teacher cache, images"


class CacheProgress:
    """Polls `progress`: images done and their total, or None while no worker writes the cache."""

    def __init__(self, progress: Callable[[], tuple[int, int] | None], callback: StudyCallback) -> None:
        self._progress, self._callback = progress, callback
        self._due = 0.0
        self._shown = False

    def poll(self) -> None:
        """Report, at most once per `EVERY_S` seconds."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + EVERY_S
        progress = self._progress()
        if progress is not None:
            self._callback.on_progress(LABEL, *progress)
        elif self._shown:
            self._callback.on_progress(LABEL, 1, 1)
        self._shown = progress is not None
