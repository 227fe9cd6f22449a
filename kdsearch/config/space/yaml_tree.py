"""YAML parsed into a tree that records the file and line of each key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from kdsearch.config.space.ranges import is_range
from kdsearch.errors import UserError

Origin = str
"""The source of a key in error messages: `file.yaml:12`, `--set a.b=1`, ..."""

MOST_VALUES = 100_000
"""Limit of keys and values in a file; a space has some hundred."""


class Tree(dict[str, Any]):
    """A mapping that records the origin of each of its keys."""

    def __init__(self) -> None:
        super().__init__()
        self.origins: dict[str, Origin] = {}

    def put(self, key: str, value: Any, origin: Origin) -> None:
        self[key] = value
        self.origins[key] = origin


def copy(value: Any, origin: Callable[[Origin], Origin] = lambda origin: origin) -> Any:
    """A deep copy without shared parts (YAML aliases are shared), with `origin` applied to each origin."""
    if isinstance(value, Tree):
        tree = Tree()
        for key, child in value.items():
            tree.put(key, copy(child, origin), origin(value.origins[key]))
        return tree
    return [copy(item, origin) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """The same value in plain dicts and lists."""
    if isinstance(value, Mapping):
        return {key: plain(child) for key, child in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def parse_yaml(text: str | bytes, origin: Callable[[int], Origin]) -> Any:
    """Parse YAML; `origin` names a line, counted from 1. Raises `UserError` on bad YAML and on duplicate keys."""
    try:
        loader = _Loader(text, origin)
        node = loader.get_single_node()
        _check_length(node)
        value = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f"{origin(mark.line + 1 if mark else 1)}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{origin(1)}: not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise UserError(f"{origin(1)}: not valid YAML: nested too deeply") from None
    except (_TooLong, ValueError) as error:
        raise UserError(f"{origin(1)}: not valid YAML: {error}") from None
    if loader.problems:
        raise UserError("\n".join(loader.problems))
    return value


def dump_yaml(value: Any) -> str:
    """YAML text that `parse_yaml` reads as the same value; a range and a list of scalars take one line."""
    return yaml.dump(plain(value), Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=120)


class _TooLong(Exception):  # noqa: N818
    """The text expands to more values than a space can have: aliases of aliases multiply."""


def _check_length(root: yaml.Node | None) -> None:
    """Raise `_TooLong` if `root` has more than `MOST_VALUES` nodes with all aliases expanded."""
    lengths: dict[int, int] = {}

    def length(node: yaml.Node) -> int:
        if id(node) not in lengths:
            lengths[id(node)] = MOST_VALUES + 1  # a node that contains itself is infinite
            children: list[Any] = [] if isinstance(node, yaml.ScalarNode) else node.value
            pairs = children if isinstance(node, yaml.MappingNode) else [(child,) for child in children]
            lengths[id(node)] = 1 + sum(length(child) for pair in pairs for child in pair)
        return lengths[id(node)]

    if root is not None and length(root) > MOST_VALUES:
        raise _TooLong(f"its aliases expand to more than {MOST_VALUES} values, or to themselves")


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: `6e-5` is a number; `on`, `yes`, `12:30` and `2024-01-01` are text."""

    yaml_implicit_resolvers = {}  # noqa: RUF012
    yaml_constructors = {  # noqa: RUF012
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }

    def __init__(self, stream: str | bytes, origin: Callable[[int], Origin]) -> None:
        super().__init__(stream)
        self.origin = origin
        self.problems: list[str] = []

    def tree(self, node: yaml.MappingNode) -> Tree:
        written: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if key_node.tag != "tag:yaml.org,2002:str":
                self._problem(key_node, f"a key must be text, got {getattr(key_node, 'value', key_node.tag)}")
            elif key_node.value in written:
                self._problem(key_node, f"{key_node.value}: duplicate key")
            else:
                written.add(key_node.value)
        self.flatten_mapping(node)
        tree = Tree()
        for key_node, value_node in node.value:
            tree.put(str(key_node.value), self.construct_object(value_node, deep=True), self._origin_of(key_node))
        return tree

    def _problem(self, node: yaml.Node, message: str) -> None:
        self.problems.append(f"{self._origin_of(node)}: {message}")

    def _origin_of(self, node: yaml.Node) -> Origin:
        return self.origin(node.start_mark.line + 1)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or YAML 1.2 would not read as text."""

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        return super().represent_mapping(tag, mapping, flow_style or is_range(mapping))

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        in_line = not any(isinstance(each, dict | list) for each in sequence)
        return super().represent_sequence(tag, sequence, flow_style or in_line)


_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$")

for _tag, _pattern, _first in (
    ("null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", re.compile(r"<<$"), ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.tree)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
