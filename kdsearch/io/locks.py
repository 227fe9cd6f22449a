"""The lock of a run folder: one driver at a time. No Optuna here, so that asking is quick."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from kdsearch.errors import UserError

PATIENCE_S = 0.5
"""`is_held` takes the lock for an instant; a driver that starts just then waits this long before it gives up."""


def hold(path: Path) -> int:
    """Hold the lock for this process; the operating system lets go of it when the process ends, however it ends.

    Returns the handle whose closing lets go. Raises `UserError` when another process holds it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            os.close(handle)
            raise UserError(
                f"Another process is running the study in {path.parent}; wait for it, or give another --name."
            ) from error
        return handle


def is_held(path: Path) -> bool:
    """Whether a driver that is alive has the lock; also on other machines, where the file system shares locks."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
