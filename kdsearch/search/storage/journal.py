"""The file of a study's record: Optuna's journal, held by one driver at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial

from kdsearch.errors import UserError
from kdsearch.io.locks import hold

_SYNCED = (JournalOperation.CREATE_STUDY, JournalOperation.SET_STUDY_USER_ATTR, JournalOperation.SET_TRIAL_USER_ATTR)


class Journal:
    """The storage in the file at `path`, or in memory without one.

    The file is locked for this process, and mended first: `cut` bytes of an unfinished entry are gone from its end.
    Raises `UserError` when another process has it open, or it is damaged.
    """

    def __init__(self, path: Path | None) -> None:
        self._handles: list[int] = []
        self.cut = 0
        self.storage: BaseStorage = InMemoryStorage()
        if path is not None:
            self._handles.append(hold(path.with_suffix(".lock")))
            # Optuna's own lock is a symlink that outlives a killed process; whoever holds ours is alone: it is stale.
            Path(f"{path}.lock").unlink(missing_ok=True)
            self.cut = _mend(path)
            self._handles.append(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644))
            self.storage = JournalStorage(SingleWriterBackend(self._handles[-1]))

    def close(self) -> None:
        while self._handles:
            os.close(self._handles.pop())


class SingleWriterBackend(BaseJournalBackend):
    """Optuna's journal file, line for line, for a process that knows that nobody else writes it.

    Optuna's own backend takes a lock and syncs the disk for every entry, and opens the file again for every look at a
    trial. Here an entry is one write, and what is read are the entries written since. The disk is synced when a trial
    is written down and when its outcome is; the entries between are the sampler's, and follow from those.
    """

    def __init__(self, file: int) -> None:
        self._file = file
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
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        self._write(("\n".join(lines) + "\n").encode())
        if any(log["op_code"] in _SYNCED for log in logs):
            os.fsync(self._file)
        # Parsed again, so that what is in memory is what is in the file and shares nothing with the caller.
        self._unread += map(json.loads, lines)

    def _write(self, data: bytes) -> None:
        """Append all of `data` or, when the disk is full, nothing."""
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            os.ftruncate(self._file, end)
            raise


def read_trials(path: Path) -> list[FrozenTrial]:
    """All trials of the searches in a journal, in order; the file may be in use, and is left as it is."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    studies = [study for study in storage.get_all_studies() if study.study_name.startswith("search")]
    return [t for study in studies for t in storage.get_all_trials(study._study_id, deepcopy=False)]


def _mend(journal: Path) -> int:
    """Cut off what a crash left behind the last whole line. Returns how many bytes, 0 where there is nothing to mend.

    A killed process leaves an unfinished line; a power cut may leave a finished one that is no JSON, or zeros. What the
    lost line said is done again: a trial that was told there is running again. Damage that is followed by whole lines
    is no crash's: `UserError`, with the line, and nothing is changed.
    """
    if not journal.exists():
        return 0
    whole = 0
    damaged = 0
    with journal.open("rb+") as file:
        for number, line in enumerate(file, start=1):
            if not _is_entry(line):
                damaged = damaged or number
            elif damaged:
                raise UserError(
                    f"{journal}:{damaged} is damaged, and whole lines follow: the journal was changed or the disk is "
                    "failing. Bring the file back from a copy, or cut that line out, and resume."
                )
            else:
                whole += len(line)
        cut = file.seek(0, os.SEEK_END) - whole
        if cut:
            file.truncate(whole)
            os.fsync(file.fileno())
    return cut


def _is_entry(line: bytes) -> bool:
    """Whether a line is an entry, written to its end."""
    if not line.endswith(b"\n"):
        return False
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return isinstance(entry, dict) and "op_code" in entry
