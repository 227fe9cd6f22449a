"""The hidden folder in which a store is built, and its recovery after an interrupted build.

A builder holds a lock on its folder; the system releases the lock when the process ends, however it ends. A folder with
a free lock is therefore abandoned: the next builder of the same store continues after its last flushed row.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsearch.data.set_facts import SampleFacts
from kdsearch.data.store.arrow_file import StoreFile
from kdsearch.errors import UserError
from kdsearch.io.atomic import sync_path
from kdsearch.io.disk import writing
from kdsearch.io.locks import acquire

BUILDING = ".building"
"""Suffix of temporary folders."""
PLAN, ROWS = "plan.json", "rows.jsonl"
KEPT_SECONDS = 7 * 24 * 3600
"""Time for which an interrupted build of another data set is kept for its next builder."""
FLUSH_SECONDS = 2.0
"""The work that a killed builder loses at most."""


@contextmanager
def temporary_folder(root: Path, name: str, plan: dict[str, Any]) -> Iterator[Path]:
    """A locked hidden folder in `root` for the store `name`: an abandoned one with this `plan`, else a new one.

    Removed at the end unless it was renamed, and after errors of the data or the disk. After any other exception, such
    as an interruption, it stays for the next builder.
    """
    temporary, lock = _abandoned(root, name, plan) or _new(root, name)
    try:
        _remove_abandoned(root, name)
        yield temporary
        shutil.rmtree(temporary, ignore_errors=True)
    except (UserError, OSError):
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(lock)


@dataclass(frozen=True)
class RowFacts:
    """A row: its pixels per class at the stored size, its sample at native size, and the digests of its files."""

    class_counts: list[int]
    sample: SampleFacts
    digests: list[str]

    def to_json(self) -> list[Any]:
        return [self.class_counts, list(vars(self.sample).values()), self.digests]

    @classmethod
    def from_json(cls, value: list[Any]) -> RowFacts:
        """Raises `TypeError` and `ValueError` for a list of another form."""
        class_counts, sample, digests = value
        return cls(class_counts, SampleFacts(*sample), digests)


class Progress:
    """The finished rows with their facts, in a file with one line per row.

    A line is written only after the row's pixels are on disk, so every complete line is true even after a power cut. An
    incomplete line ends the file: it and all lines after it are dropped.
    """

    def __init__(self, path: Path, counts: dict[str, int], num_classes: int) -> None:
        self.done: dict[str, dict[int, RowFacts]] = {split: {} for split in counts}
        self._path, self._pending, self._flushed = path, [], time.monotonic()  # type: tuple[Path, list[str], float]
        valid = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            try:
                split, row, *facts = json.loads(line)
                known = RowFacts.from_json(facts)
                is_valid = line.endswith(b"\n") and 0 <= row < counts[split] and len(known.class_counts) == num_classes
            except (ValueError, TypeError, KeyError):
                break
            if not is_valid:
                break
            self.done[split][row] = known
            valid += len(line)
        with writing(path):
            self._file = path.open("ab")
            self._file.truncate(valid)

    def add(self, split: str, row: int, facts: RowFacts, file: StoreFile) -> None:
        """Record a row of `file`, and flush if the last flush is `FLUSH_SECONDS` ago."""
        self.done[split][row] = facts
        self._pending.append(json.dumps([split, row, *facts.to_json()]) + "\n")
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush(file)

    def flush(self, file: StoreFile) -> None:
        """Write the pixels to disk, then the lines of their rows. All pending rows are rows of `file`."""
        file.sync()
        with writing(self._path):
            self._file.write("".join(self._pending).encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        self._pending.clear()
        self._flushed = time.monotonic()

    def close(self) -> None:
        self._file.close()


def write_plan(temporary: Path, plan: dict[str, Any]) -> None:
    """Record the build's parameters once its files are allocated; a folder without a plan can be removed."""
    with writing(temporary / PLAN):
        partial = temporary / f"{PLAN}.partial"
        partial.write_text(json.dumps(plan))
        sync_path(partial)
        partial.rename(temporary / PLAN)
        sync_path(temporary)


def read_plan(temporary: Path) -> Any:
    """The plan of a temporary folder, or None."""
    try:
        return json.loads((temporary / PLAN).read_text())
    except (OSError, ValueError):
        return None


def _new(root: Path, name: str) -> tuple[Path, int]:
    while True:
        with writing(root):
            temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=BUILDING, dir=root))
        temporary.chmod(0o755)  # mkdtemp's 0700 would hide the store from other users of the node
        lock = _lock(temporary)
        if lock is not None:  # else another process removed it before it was locked
            return temporary, lock


def _abandoned(root: Path, name: str, plan: dict[str, Any]) -> tuple[Path, int] | None:
    for path in sorted(root.glob(f".{name}.*{BUILDING}")):
        lock = _lock(path)
        if lock is None:
            continue
        if read_plan(path) == plan:
            return path, lock
        os.close(lock)
    return None


def _lock(path: Path) -> int | None:
    """The lock on a temporary folder, or None if its builder is alive or the folder is gone."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        if acquire(lock) and os.stat(path).st_ino == os.fstat(lock).st_ino:
            return lock
    except FileNotFoundError:
        pass
    os.close(lock)
    return None


def _remove_abandoned(root: Path, name: str) -> None:
    """Remove abandoned folders that no builder will continue: without a plan, of older data, or too old."""
    same_set = f".{name}."
    for path in root.glob(f".*{BUILDING}"):
        lock = _lock(path)
        if lock is None:
            continue
        try:
            rows = path / ROWS
            fresh = rows.exists() and time.time() - rows.stat().st_mtime < KEPT_SECONDS
            if path.name.startswith(same_set) or not fresh or read_plan(path) is None:
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)
