"""A search space as a tree of typed nodes: sections, branches, ranges and plain values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kdsearch.config.space.ranges import Choice, Int, IntLog, Log, Range, RangeError, Uniform, is_range, parse_range
from kdsearch.config.space.yaml_tree import Origin, Tree, plain
from kdsearch.errors import did_you_mean

Choose = Callable[[str, Range], Any]
"""Returns the value of a parameter from its name and range."""


@dataclass(frozen=True)
class Section:
    """A mapping of keys to nodes."""

    children: Mapping[str, Node]
    origins: Mapping[str, Origin]


@dataclass(frozen=True)
class OneOf:
    """Branches by label. The parameters of a branch exist only if the branch is taken."""

    branches: Mapping[str, Node]
    default: str

    @property
    def labels(self) -> Choice:
        """The choice between the branches, as the parameter that a sampler sees."""
        return Choice(tuple(self.branches), self.default)

    def branch(self, name: str, label: str) -> tuple[str, Node]:
        """The name and the node of one branch of the `one_of` with the dotted name `name`."""
        return f"{name}[{label}]", self.branches[label]


Node = Section | OneOf | Range | Any


@dataclass(frozen=True)
class Parameter:
    """One parameter of a space, and the branches that must be taken for it to exist."""

    name: str
    domain: Range
    origin: Origin
    taken: Mapping[str, str]


def join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def is_one_of(raw: Any) -> bool:
    return isinstance(raw, Mapping) and "one_of" in raw


def branch_labels(branches: list[Any]) -> list[str]:
    """The label of each branch; a label that is not unique is replaced by the index of the branch.

    The label is the `arch`, `name` or `mode` of the branch; for a branch of sections alone, such as a set of
    distillation terms, it is the keys, as in `kd+cwd`. A null branch is `none`, and a single other branch is `on`.
    """
    labels = [_own_label(branch) for branch in branches]
    if sorted(branch is None for branch in branches) == [False, True]:
        labels = [label or "on" for label in labels]
    return [
        label if label is not None and labels.count(label) == 1 else str(index) for index, label in enumerate(labels)
    ]


def _own_label(branch: Any) -> str | None:
    if branch is None:
        return "none"
    candidates = [branch.get(key) for key in ("arch", "name", "mode")] if isinstance(branch, Mapping) else []
    label = next((value for value in candidates if isinstance(value, str)), None)
    if label is None and isinstance(branch, Mapping) and branch and all(map(_is_section, branch.values())):
        label = "+".join(branch)
    # Labels are part of parameter names, and must not look like an index.
    return label if label is not None and re.fullmatch(r"[A-Za-z_][\w+-]*", label) else None


def _is_section(raw: Any) -> bool:
    return raw is None or (isinstance(raw, Mapping) and not is_range(raw))


def build(node: Node, choose: Choose, name: str = "") -> Any:
    """The plain value of a node. `choose` is called only for the parameters of the branches that it takes."""
    match node:
        case OneOf():
            branch_name, branch = node.branch(name, choose(name, node.labels))
            return build(branch, choose, branch_name)
        case Uniform() | Log() | Int() | IntLog() | Choice():
            return choose(name, node)
        case Section():
            return {key: build(child, choose, join(name, key)) for key, child in node.children.items()}
        case _:
            return node


def parameters(
    node: Node, origin: Origin, name: str = "", taken: Mapping[str, str] | None = None
) -> Iterator[Parameter]:
    """All parameters below a node, those of every branch included."""
    taken = taken or {}
    match node:
        case OneOf():
            yield Parameter(name, node.labels, origin, taken)
            for label in node.branches:
                branch_name, branch = node.branch(name, label)
                yield from parameters(branch, origin, branch_name, {**taken, name: label})
        case Uniform() | Log() | Int() | IntLog() | Choice():
            yield Parameter(name, node, origin, taken)
        case Section():
            for key, child in node.children.items():
                yield from parameters(child, node.origins[key], join(name, key), taken)


class Reader:
    """Parses a tree into nodes. Malformed parts stay unparsed and are listed in `broken`."""

    def __init__(self) -> None:
        self.broken: list[tuple[Origin, str, str]] = []

    def read(self, raw: Any, origin: Origin, name: str = "") -> Node:
        if is_one_of(raw):
            return self._one_of(raw, origin, name)
        if is_range(raw):
            return self._range(raw, origin, name)
        if isinstance(raw, Tree):
            children = {key: self.read(child, raw.origins[key], join(name, key)) for key, child in raw.items()}
            return Section(children, raw.origins)
        if _hides_a_range(raw):
            self.broken.append((origin, name, "a range inside a list: make the whole list a choice"))
        return raw

    def _range(self, raw: Tree, origin: Origin, name: str) -> Node:
        try:
            domain = parse_range(plain(raw))
        except RangeError as error:
            self.broken.append((origin, name, str(error)))
            return raw
        if isinstance(domain, Choice) and any(map(_hides_a_range, domain.options)):
            self.broken.append((origin, name, "a range inside an option of a choice: use one_of"))
        return domain

    def _one_of(self, raw: Tree, origin: Origin, name: str) -> Node:
        problem = _one_of_problem(raw)
        if problem:
            self.broken.append((origin, name, problem))
            return raw
        labels = branch_labels(raw["one_of"])
        default = raw.get("default", 0)
        branches = {
            label: self.read(branch, raw.origins["one_of"], f"{name}[{label}]")
            for label, branch in zip(labels, raw["one_of"], strict=True)
        }
        return OneOf(branches, labels[default] if isinstance(default, int) else default)


def _one_of_problem(raw: Tree) -> str | None:
    """The problem of a `one_of` node itself, apart from its branches; None if it is well formed."""
    branches, default = raw["one_of"], raw.get("default", 0)
    for key in raw:
        if key not in ("one_of", "default"):
            return f"unknown key '{key}' beside 'one_of'.{did_you_mean(key, ['default'])}"
    if not isinstance(branches, list) or not branches:
        return f"one_of needs a list of branches, got {plain(branches)!r}"
    for branch in branches:
        if branch is not None and not isinstance(branch, Tree):
            return f"a branch of one_of is a mapping or null, got {branch!r}: use choice for values"
    labels = branch_labels(branches)
    if default not in labels and (isinstance(default, bool) or default not in range(len(labels))):
        return f"default {default!r} is no branch.{did_you_mean(str(default), labels)}"
    return None


def _hides_a_range(raw: Any) -> bool:
    if isinstance(raw, Mapping):
        return is_range(raw) or is_one_of(raw) or any(map(_hides_a_range, raw.values()))
    return isinstance(raw, list) and any(map(_hides_a_range, raw))
