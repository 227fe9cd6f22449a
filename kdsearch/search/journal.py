"""The file of a study's record: Optuna's journal, held by one driver at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from kdsearch.errors import UserError


class Journal:
    """The storage in the file at `path`, or in memory without one.

    The file is locked for this process. Raises `UserError` when another has it open.
    """

    def __init__(self, path: Path | None) -> None:
        self._lock: int | None = None
        self.storage: BaseStorage = InMemoryStorage()
        if path is not None:
            self._lock = _lock(path)
            _drop_torn_line(path)
            self.storage = JournalStorage(JournalFileBackend(str(path)))

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(journal: Path) -> int:
    """Hold the journal for this process; the operating system lets go of it when the process ends, however it ends."""
    handle = os.open(journal.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UserError(
            f"Another process is running the study in {journal.parent}; wait for it, or give another --name."
        ) from error
    # Optuna's own lock is a symlink that outlives a killed process; whoever holds ours is alone, so it is stale.
    Path(f"{journal}.lock").unlink(missing_ok=True)
    return handle


def _drop_torn_line(journal: Path) -> None:
    """Cut an unfinished last line, left by a process that was killed while writing it."""
    if not journal.exists():
        return
    with journal.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
