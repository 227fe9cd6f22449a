"""Advisory locks between processes, also of different machines where the file system supports them (`flock`).

The operating system releases a lock when its process ends, however it ends. A lock is held through an open descriptor:
closing the descriptor releases it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kdsearch.errors import UserError

PATIENCE_S = 0.5
"""Time that `hold` waits for the lock: `is_held` takes it for an instant, also when a driver starts at that moment."""


def hold(path: Path) -> int:
    """Lock the study whose lock file is `path` for this process; returns the descriptor.

    `UserError` while another process holds the lock.
    """
    deadline = time.monotonic() + PATIENCE_S
    while (handle := take(path)) is None:
        if time.monotonic() >= deadline:
            raise UserError(
                f"Another process is running the study in {path.parent}; wait for it, or give another --name."
            )
        time.sleep(0.05)
    return handle


def take(path: Path) -> int | None:
    """Lock the file `path`, which is created where needed; the descriptor, or None while another process holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if acquire(handle):
        return handle
    os.close(handle)
    return None


def is_held(path: Path) -> bool:
    """Whether a live process holds the lock of the file `path`."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not acquire(handle, shared=True)
    finally:
        os.close(handle)


def acquire(descriptor: int, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file or folder; without `wait`, False while a lock of another descriptor forbids it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock of the file `path`, which is created where needed; waits while another process holds it.

    `waiting` is called once if it has to.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not acquire(descriptor):
            if waiting is not None:
                waiting()
            acquire(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)
