"""The hidden folder in which a store is built, and what a build that was cut off left in it.

A builder holds a lock on its folder; the system drops the lock when the process ends, however it ends. A folder whose
lock is free was left behind: the next builder of the same store takes it over and goes on after its last flushed row.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdsearch.data.store.arrow_file import StoreFile
from kdsearch.errors import UserError
from kdsearch.io.atomic import sync_path
from kdsearch.io.disk import writing
from kdsearch.io.locks import acquire

BUILDING = ".building"
"""Ends the names of temporary folders."""
PLAN, ROWS = "plan.json", "rows.jsonl"
KEPT_SECONDS = 7 * 24 * 3600
"""How long what is left of a cut-off build of another set is kept for its next builder."""
FLUSH_SECONDS = 2.0
"""At most this much work is lost with a builder."""


@contextmanager
def temporary_folder(folder: Path, plan: dict[str, Any]) -> Iterator[Path]:
    """A locked sibling of `folder`: one with this `plan` that was left behind, else a new one.

    It is removed at the end unless it was renamed, and after errors of the data or the disk; after anything else, such
    as an interruption, it stays for the next builder.
    """
    temporary, lock = _left_behind(folder, plan) or _new(folder)
    try:
        _remove_litter(folder)
        yield temporary
        shutil.rmtree(temporary, ignore_errors=True)
    except (UserError, OSError):
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(lock)


class Progress:
    """The rows that are done, with their pixels a class, in a file of one line a row.

    A row is written down only after its pixels are on disk, so what a line says holds even after a power cut. A torn
    line ends the file: it and all after it are not believed.
    """

    def __init__(self, path: Path, counts: dict[str, int], num_classes: int) -> None:
        self.done: dict[str, dict[int, list[int]]] = {split: {} for split in counts}
        self._path, self._pending, self._flushed = path, [], time.monotonic()  # type: tuple[Path, list[str], float]
        valid = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            try:
                split, row, classes = json.loads(line)
                believed = line.endswith(b"\n") and 0 <= row < counts[split] and len(classes) == num_classes
            except (ValueError, TypeError, KeyError):
                break
            if not believed:
                break
            self.done[split][row] = classes
            valid += len(line)
        with writing(path):
            self._file = path.open("ab")
            self._file.truncate(valid)

    def add(self, split: str, row: int, classes: list[int], file: StoreFile) -> None:
        """Note a row of `file`, and flush if the last time is long ago."""
        self.done[split][row] = classes
        self._pending.append(json.dumps([split, row, classes]) + "\n")
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush(file)

    def flush(self, file: StoreFile) -> None:
        """Bring the pixels to disk, then the lines that say so. All pending rows are rows of `file`."""
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
    """Say what is built here. Written once the files are allocated: a folder without a plan is litter."""
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


def _new(folder: Path) -> tuple[Path, int]:
    while True:
        with writing(folder.parent):
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=BUILDING, dir=folder.parent))
        temporary.chmod(0o755)  # mkdtemp's 0700 would hide the store from other users of the node
        lock = _lock(temporary)
        if lock is not None:  # else another process took it for litter before it was locked
            return temporary, lock


def _left_behind(folder: Path, plan: dict[str, Any]) -> tuple[Path, int] | None:
    for path in sorted(folder.parent.glob(f".{folder.name}.*{BUILDING}")):
        lock = _lock(path)
        if lock is None:
            continue
        if read_plan(path) == plan:
            return path, lock
        os.close(lock)
    return None


def _lock(path: Path) -> int | None:
    """The lock on a temporary folder, or None where its builder lives or it is no longer there."""
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


def _remove_litter(folder: Path) -> None:
    """Remove what no builder will go on with: folders without a plan, of older data, or left long ago."""
    same_set = f".{folder.name.rpartition('-')[0]}-"
    for path in folder.parent.glob(f".*{BUILDING}"):
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
