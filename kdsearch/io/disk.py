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


@contextmanager
def leaving_no_empty_folders(folder: Path) -> Iterator[None]:
    """If the block fails, remove `folder` and its parents, as far as they are new and empty."""
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in created:
            try:
                path.rmdir()
            except OSError:  # it holds something by now, or was never made
                break
        raise
