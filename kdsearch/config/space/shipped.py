"""Lookup of search spaces: shipped ones by name, those of users by path."""

from __future__ import annotations

import os
from pathlib import Path

from kdsearch.errors import UserError, did_you_mean

_PACKAGE = Path(__file__).parents[2]


def spaces_folder() -> Path:
    """The shipped spaces: inside the package in a wheel, beside it in a checkout."""
    inside = _PACKAGE / "search_spaces"
    return inside if inside.is_dir() else _PACKAGE.parent / "search_spaces"


def shipped_spaces() -> list[str]:
    """Names of the shipped spaces, in alphabetical order."""
    return sorted(path.stem for path in spaces_folder().glob("*.yaml"))


def find_space(source: str | Path) -> Path:
    """The file of a space, given by its path or, for a shipped one, by its name. Raises `UserError`."""
    path = Path(source)
    if isinstance(source, Path) or path.suffix in (".yaml", ".yml") or os.sep in source:
        return yaml_file(path)
    if source not in shipped_spaces():
        raise UserError(f"unknown search space '{source}'.{did_you_mean(source, shipped_spaces())}")
    return spaces_folder() / f"{source}.yaml"


def yaml_file(path: Path) -> Path:
    """`path`, if it is a file. Raises `UserError`."""
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder; name the YAML file in it.")
        if not path.is_file():
            raise UserError(f"{path}: no such file.")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name another file.") from None
    return path


def display(path: Path) -> str:
    """The path for error messages: relative if it is below the working directory."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else path)
