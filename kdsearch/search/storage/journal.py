"""The journal file of a study: Optuna's journal storage, written by one driver at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from kdsearch.errors import UserError
from kdsearch.io.json_text import to_json
from kdsearch.io.locks import hold
from kdsearch.search.sampling import optuna_private


class Journal:
    """An open journal: Optuna's `storage`, and the file handles that keep it locked for this process.

    `cut` is the number of bytes of an unfinished entry that were removed from the end of the file when it was opened.
    """

    def __init__(self, storage: BaseStorage, handles: Sequence[int] = (), cut: int = 0) -> None:
        self.storage = storage
        self.cut = cut
        self._handles = list(handles)

    @classmethod
    def open(cls, path: Path | None) -> Journal:
        """Lock and repair the file at `path`, and create it if it is missing; without a path, a journal in memory.

        Raises `UserError` if another process has it open, and if it is damaged before its end.
        """
        if path is None:
            return cls(InMemoryStorage())
        handles = [hold(path.with_suffix(".lock"))]
        try:
            # Optuna's own lock is a symlink that outlives a killed process. We hold the study's lock: it is stale.
            Path(f"{path}.lock").unlink(missing_ok=True)
            cut = _repair(path)
            handles.append(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644))
            fast = optuna_private.supported()
            return cls(
                JournalStorage(SingleWriterBackend(handles[-1]) if fast else JournalFileBackend(str(path))),
                handles,
                cut,
            )
        except BaseException:
            for handle in handles:
                os.close(handle)
            raise

    def close(self) -> None:
        """Release the file. May be called twice."""
        while self._handles:
            os.close(self._handles.pop())


class SingleWriterBackend(BaseJournalBackend):
    """Optuna's journal file, in the same format, for a process that is the only writer.

    Optuna's own backend takes a lock and syncs the disk for every entry, and opens the file again for every read. Here
    an entry is one write, and only entries written since are read. The disk is synced after the settings of a trial and
    after its outcome; other entries are the sampler's and can be derived from those.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._durable = optuna_private.durable_operations()
        with open(os.dup(file), "rb") as lines:
            lines.seek(0)
            self._unread: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self._read = 0

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        assert log_number_from >= self._read, "entries are read once, in order"
        del self._unread[: log_number_from - self._read]
        self._read = log_number_from
        return list(self._unread)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [to_json(log, separators=(",", ":")) for log in logs]
        self._write(("\n".join(lines) + "\n").encode())
        if any(log["op_code"] in self._durable for log in logs):
            os.fsync(self._file)
        # Parsed again, so that memory holds what the file holds and shares nothing with the caller.
        self._unread += map(json.loads, lines)

    def _write(self, data: bytes) -> None:
        """Append all of `data` or, if the disk is full, nothing."""
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            os.ftruncate(self._file, end)
            raise


def _repair(journal: Path) -> int:
    """Remove the bytes that a crash left after the last complete line. Returns their number.

    A killed process leaves an unfinished line; a power cut may leave a finished one that is no JSON, or zeros. The work
    of the lost entry is repeated: a trial whose outcome it held is running again. Damage that complete lines follow has
    another cause: `UserError` with the line, and the file is left unchanged.
    """
    if not journal.exists():
        return 0
    complete = 0
    damaged = 0
    with journal.open("rb+") as file:
        for number, line in enumerate(file, start=1):
            if not _is_entry(line):
                damaged = damaged or number
            elif damaged:
                raise UserError(
                    f"{journal}:{damaged} is damaged, and complete lines follow: the journal was edited or the disk is "
                    "failing. Restore the file from a copy, or delete that line, and resume."
                )
            else:
                complete += len(line)
        cut = file.seek(0, os.SEEK_END) - complete
        if cut:
            file.truncate(complete)
            os.fsync(file.fileno())
    return cut


def _is_entry(line: bytes) -> bool:
    """Whether a line is a complete entry."""
    if not line.endswith(b"\n"):
        return False
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return isinstance(entry, dict) and "op_code" in entry
