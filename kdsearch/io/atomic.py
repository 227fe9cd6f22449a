"""Atomic writes: a file or folder appears complete or not at all.

Content goes into a temporary sibling named `.<name>.<process>-<host>-<random>.partial`, is synced to disk and renamed.
The part of such a name up to the second dot is the name of the target.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import socket
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
    """Let `write` fill a temporary folder beside `path`, sync it and put it in the place of `path`.

    Readers find the old folder or the new one, never none.
    """
    _write_folder(path, write, replace=True)


def write_folder_once(path: Path, write: Callable[[Path], None]) -> None:
    """`write_folder_atomically` for a folder named by its content: one that another process wrote meanwhile stays."""
    _write_folder(path, write, replace=False)


def _write_folder(path: Path, write: Callable[[Path], None], replace: bool) -> None:
    partial = partial_path(path)
    partial.mkdir(parents=True)
    try:
        write(partial)
        for file in (*partial.rglob("*"), partial):
            sync_path(file)
        try:
            os.rename(partial, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if replace:
                _exchange(partial, path)
        sync_path(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _exchange(partial: Path, path: Path) -> None:
    """Exchange two folders in one step, where the file system can (not NFS); else by two renames in a row."""
    libc = ctypes.CDLL(None, use_errno=True)
    here, one, other = -100, os.fsencode(partial.absolute()), os.fsencode(path.absolute())  # -100: AT_FDCWD
    if hasattr(libc, "renameat2"):  # Linux; 2: RENAME_EXCHANGE
        done = libc.renameat2(here, one, here, other, 2) == 0
    else:  # macOS; 2: RENAME_SWAP
        done = hasattr(libc, "renamex_np") and libc.renamex_np(one, other, 2) == 0
    if not done:
        old = partial_path(path)
        os.rename(path, old)
        os.rename(partial, path)
        shutil.rmtree(old, ignore_errors=True)


def partial_path(path: Path) -> Path:
    """A temporary sibling of `path` whose name no other process of any machine and no other call uses."""
    host = re.sub(r"\W", "_", socket.gethostname())[:32]
    return path.with_name(f".{path.name}.{os.getpid()}-{host}-{uuid.uuid4().hex[:8]}.partial")


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
