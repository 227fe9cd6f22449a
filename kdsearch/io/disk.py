"""Errors of the disk, with the name of the file that could not be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdsearch.errors import UserError


class DiskError(UserError):
    """A file cannot be written: the disk, not the data, is at fault."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a system error (full disk, exceeded quota, failing disk) into a `DiskError` that names `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise DiskError(f"cannot write {path} ({reason}); make room, or choose another folder for stores") from error
