"""Plug-ins: terms, readers, samplers, stop rules and callbacks from outside this package.

A plug-in is a Python module with at least one of these attributes:

- `TERMS`: a list of `Term` classes;
- `READERS`: a mapping from names to reader classes;
- `SAMPLERS`: a mapping from names to samplers (`search/sampling/factory.py` lists the forms);
- `STOP_RULES`: a mapping from names to `StopRule` classes;
- `CALLBACKS`: a list of `StudyCallback` classes, each made once per study.

The environment variable `KDSEARCH_PLUGINS` lists modules, separated by commas; an installed package declares its
modules as entry points of the group `kdsearch.plugins`. No file that kdsearch reads can list a plug-in, so the spaces,
run folders and students of other people import nothing.

This module imports plug-ins and nothing else of kdsearch. The registries check the classes: `config/terms/registry.py`
and `distill/registry.py` (terms), `data/registry.py` (readers), `search/` (samplers, stop rules, callbacks).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import metadata
from types import ModuleType
from typing import Any

from kdsearch.errors import UserError

VARIABLE = "KDSEARCH_PLUGINS"
GROUP = "kdsearch.plugins"
LISTS = ("TERMS", "READERS", "SAMPLERS", "STOP_RULES", "CALLBACKS")
"""Attributes of a plug-in module that kdsearch reads."""


def named() -> str:
    """The modules of the environment variable, as written there. The workers of a cluster receive the same text."""
    return os.environ.get(VARIABLE, "")


def collect(attribute: str) -> Iterator[tuple[ModuleType, Any]]:
    """Each plug-in module that has `attribute`, one of `LISTS`, with the attribute's value. Imports the plug-ins."""
    assert attribute in LISTS, attribute
    for module in modules(named()):
        if hasattr(module, attribute):
            yield module, getattr(module, attribute)


def merged(attribute: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` and the entries of the mapping `attribute` of every plug-in. Raises `UserError` for a name used twice."""
    found = dict(own)
    for module, values in collect(attribute):
        for name, value in values.items():
            add_once(found, name, value, module)
    return found


def add_once(found: dict[str, Any], name: str, value: Any, module: ModuleType) -> None:
    """Add the entry `name` of a plug-in module to `found`. Raises `UserError` where `found` has the name already."""
    if name in found:
        raise UserError(f"plug-in {module.__name__}: there is a '{name}' already; choose another name.")
    found[name] = value


@lru_cache(maxsize=1)
def modules(names: str) -> tuple[ModuleType, ...]:
    """The plug-ins of installed packages, then those of `names` (separated by commas), each imported once."""
    found = {entry.value: f"entry point {entry.name}" for entry in metadata.entry_points(group=GROUP)}
    found |= {name.strip(): VARIABLE for name in names.split(",") if name.strip()}
    return tuple(_imported(name, where) for name, where in found.items())


def _imported(name: str, where: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module exists, but something it imports does not
        raise UserError(
            f"{where}: there is no module '{name}'; install it, or put the folder that contains it on PYTHONPATH."
        ) from error
    if not any(hasattr(module, attribute) for attribute in LISTS):
        raise UserError(f"{where}: module '{name}' has none of {', '.join(LISTS)}; a plug-in defines at least one.")
    return module
