"""Plug-ins: distillation terms and data-set readers that are not part of this package.

A plug-in is a Python module with a list `TERMS` of `Term` classes, a mapping `READERS` of names to classes of readers,
or both. The user names modules in the environment variable `KDSEARCH_PLUGINS`, with commas between them; an installed
package names its own as entry points of the group `kdsearch.plugins`. No file that kdsearch reads can name one, so that
spaces, run folders and students of others import nothing.
"""

from __future__ import annotations

import importlib
import os
from functools import lru_cache
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kdsearch.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kdsearch.distill.base import Term

VARIABLE = "KDSEARCH_PLUGINS"
GROUP = "kdsearch.plugins"


def named() -> str:
    """The modules that the environment names, as it names them: workers of a cluster are told the same."""
    return os.environ.get(VARIABLE, "")


def terms(own: Iterable[type[Term]]) -> dict[str, type[Term]]:
    """The terms by name: `own`, which come with kdsearch, and those of all plug-ins. `UserError` for a name twice."""
    from kdsearch.distill.base import Term

    found = {term.name: term for term in own}
    for module in modules(named()):
        for term in getattr(module, "TERMS", ()):
            if not (isinstance(term, type) and issubclass(term, Term) and isinstance(getattr(term, "name", None), str)):
                raise UserError(f"plug-in {module.__name__}: TERMS holds {term!r}, no class of Term with a name.")
            _add(found, term.name, term, module)
    return found


def readers(own: Mapping[str, str]) -> dict[str, Any]:
    """The readers by name: `own` as `module:Class`, those of plug-ins as classes. `UserError` for a name twice."""
    found: dict[str, Any] = dict(own)
    for module in modules(named()):
        for name, reader in getattr(module, "READERS", {}).items():
            _add(found, name, reader, module)
    return found


@lru_cache(maxsize=1)
def modules(names: str) -> tuple[ModuleType, ...]:
    """The plug-ins of installed packages, then those of `names` (with commas between them), each imported once."""
    found = {entry.value: f"entry point {entry.name}" for entry in metadata.entry_points(group=GROUP)}
    found |= {name.strip(): VARIABLE for name in names.split(",") if name.strip()}
    return tuple(_imported(name, where) for name, where in found.items())


def _imported(name: str, where: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # found, but it needs something that is not installed
        raise UserError(
            f"{where}: there is no module '{name}'; install it, or put the folder that it lies in on PYTHONPATH."
        ) from error
    if not (hasattr(module, "TERMS") or hasattr(module, "READERS")):
        raise UserError(
            f"{where}: module '{name}' has neither TERMS nor READERS; a plug-in lists there what it brings."
        )
    return module


def _add(found: dict[str, Any], name: str, value: Any, module: ModuleType) -> None:
    if name in found:
        raise UserError(f"plug-in {module.__name__}: there is a '{name}' already; choose another name.")
    found[name] = value
