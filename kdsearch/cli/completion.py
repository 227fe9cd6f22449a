"""Completion in shells: names of spaces, profiles, settings, data sets and run folders.

The script that `kdsearch completion` prints calls this program at each TAB, through argcomplete. This module runs then
only, and must be fast.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.config.space.yaml_tree import Tree

Completer = Callable[..., list[str]]


def by(action: argparse.Action, completer: Completer) -> None:
    """Let `completer` give the completions of an argument; it is called with `prefix` and `parsed_args`."""
    action.completer = completer  # type: ignore[attr-defined]


def answer(parser: argparse.ArgumentParser) -> None:
    """Print the completions that the shell requests by its environment, and end the process."""
    import argcomplete

    argcomplete.autocomplete(parser, always_complete_options="long", exclude=["-h", "--help"])


def spaces(prefix: str, **_: Any) -> list[str]:
    from kdsearch.config.space.shipped import shipped_spaces

    return [*shipped_spaces(), *_files(prefix, ("yaml", "yml"))]


def profiles(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    tree = _tree(parsed_args)
    return [*tree.get("profiles", {})]


def settings(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Dotted names of the settings in the file of the space; every other setting is valid as well."""
    beside = ("name", "description", "profiles")
    return [f"{key}=" for key in _leaves(_tree(parsed_args)) if key.partition(".")[0] not in beside]


def readers(prefix: str, **_: Any) -> list[str]:
    from kdsearch.data.registry import READERS

    name, separator, path = prefix.partition("=")
    return [f"{name}={file}" for file in _files(path, ())] if separator else [f"{name}=" for name in READERS]


def runs(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Paths of run folders: those of the storage, and those that continue the typed path."""
    return [*(str(path) for path in _run_folders(parsed_args)), *_files(prefix, ())]


def run_names(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Names of the runs in the storage."""
    return [path.name for path in _run_folders(parsed_args)]


def folders(prefix: str, **_: Any) -> list[str]:
    return _files(prefix, ())


def _run_folders(options: argparse.Namespace) -> list[Path]:
    from pathlib import Path

    storage = Path(getattr(options, "storage", None) or "runs").expanduser()
    return [space.parent for space in storage.glob("*/space.yaml")]


def _files(prefix: str, endings: tuple[str, ...]) -> list[str]:
    """Folders, and files with one of these endings, that begin with `prefix`; hidden ones if `prefix` is hidden."""
    from argcomplete.completers import DirectoriesCompleter, FilesCompleter

    completer = FilesCompleter(endings) if endings else DirectoriesCompleter()
    hidden = os.path.basename(prefix).startswith(".")
    return [path for path in completer(prefix) if hidden or not os.path.basename(path.rstrip("/")).startswith(".")]


def _tree(options: argparse.Namespace) -> Tree:
    """The file of the typed space; empty if it cannot be read."""
    from kdsearch.config.space.shipped import find_space
    from kdsearch.config.space.yaml_tree import Tree, parse_yaml
    from kdsearch.errors import UserError

    try:
        tree = parse_yaml(find_space(options.space).read_bytes(), str)
    except (UserError, OSError, AttributeError, TypeError):
        return Tree()
    return tree if isinstance(tree, Tree) else Tree()


def _leaves(tree: Any, name: str = "") -> Iterator[str]:
    from kdsearch.config.space.ranges import is_range

    if isinstance(tree, dict) and not is_range(tree) and "one_of" not in tree:
        for key, child in tree.items():
            yield from _leaves(child, f"{name}.{key}" if name else key)
    else:
        yield name
