"""Atomic writes: a file or folder appears complete or not at all.

Content goes into a temporary sibling named `.<name>.<process>-<random>.partial`, is synced to disk and renamed. The
part of such a name up to the second dot is the name of the target.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdsearch.io.json_text import to_json


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it to disk and rename it to `path`."""
    partial = partial_path(path)
    try:
        write(partial)
        sync_path(partial)
        os.replace(partial, path)
        sync_path(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    write_text(path, to_json(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    def write(partial: Path) -> None:
        partial.write_text(text)

    write_atomically(path, write)


def write_folder_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder beside `path` with files, sync them and rename the folder to `path`."""
    partial = partial_path(path)
    partial.mkdir(parents=True)
    try:
        write(partial)
        for file in partial.iterdir():
            sync_path(file)
        sync_path(partial)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
        sync_path(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_path(path: Path) -> Path:
    """A temporary sibling of `path` whose name no other process and no other call uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")


def sync_path(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)
