"""The files and folders that a command is to write: checked before the work, and gone if nothing came into them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kdsearch.errors import UserError
from kdsearch.io.atomic import write_text


def check_target(option: str, path: Path) -> None:
    """Raise `UserError` unless `path`, the value of `option`, can be created, with all folders above it."""
    target = path.absolute()
    longest = os.pathconf("/", "PC_NAME_MAX") - len(f"..{os.getpid()}-12345678.partial")
    if len(os.fsencode(target.name)) > longest:
        raise UserError(f"{option} {target.name[:20]}...: a name has at most {longest} bytes; give a shorter one.")
    try:
        above = next(each for each in target.parents if each.exists())
    except OSError as error:
        raise UserError(f"{option} {path} cannot be written ({error.strerror}); give another.") from None
    if not above.is_dir():
        raise UserError(f"{option} {path} cannot be written: {above} is a file, not a folder; give another.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path} cannot be written: {above} belongs to somebody else; give another.")


def write_target(path: Path, text: str) -> None:
    """Write a file that a command was asked for, with all folders above it, as commands that write folders do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


@contextmanager
def new_folders(*paths: Path) -> Iterator[None]:
    """For work that creates the folders `paths` and those above them: if it fails, the empty ones are removed again."""
    wanted = {folder for path in paths for folder in (path, *path.parents)}
    absent = [folder for folder in wanted if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in sorted(absent, key=lambda each: len(each.parts), reverse=True):
            with suppress(OSError):  # it was never made, or something is in it
                folder.rmdir()
        raise
