"""Changes to a space before it is parsed: a profile, a data set, and `--set` overrides."""

from __future__ import annotations

import re
from typing import Any, TypeGuard

from kdsearch.config.space.ranges import is_range
from kdsearch.config.space.tree import branch_labels, is_one_of, join
from kdsearch.config.space.yaml_tree import Origin, Tree, copy, parse_yaml
from kdsearch.errors import UserError, did_you_mean

_SEGMENT = re.compile(r"([^.\[\]]+)((?:\[[^.\[\]]+\])*)$")


def overlay(base: Tree, over: Tree) -> Tree:
    """A copy of `base` with `over` merged into it.

    Sections are merged. A range or a `one_of` on either side is replaced as a whole, and so is a section that changes
    its `arch` (`data` and `sampler`: their `name`), because the keys of one architecture do not fit another.
    """
    merged: Tree = copy(base)
    for key, value in over.items():
        old = merged.get(key)
        if _is_section(old) and _is_section(value) and not _changes_identity(key, old, value):
            value = overlay(old, value)
        merged.put(key, copy(value), over.origins[key])
    return merged


def set_data(tree: Tree, name: str, path: str) -> None:
    """Select another data set; the options of the reader are dropped if the reader changes."""
    origin = f"--data {name}={path}"
    if not isinstance(tree.get("data"), Tree):
        tree.put("data", Tree(), origin)
    data = tree["data"]
    if data.get("name") != name:
        data.pop("options", None)
    data.put("name", name, origin)
    data.put("path", path, origin)


def set_override(tree: Tree, override: str) -> None:
    """Apply one `--set a.b[label].c=VALUE`, with a value in YAML. Raises `UserError`."""
    origin = f"--set {override}"
    path, equals, text = override.partition("=")
    steps = _steps(path.strip())
    if not equals or not steps:
        raise UserError(f"{origin}: should have the form --set section.key=value")
    value = parse_yaml(text, lambda line: origin)
    _set(tree, steps, value, origin, "")


def _is_section(value: Any) -> TypeGuard[Tree]:
    return isinstance(value, Tree) and not is_range(value) and not is_one_of(value)


def _changes_identity(key: str, old: Tree, new: Tree) -> bool:
    identity = "name" if key in ("data", "sampler") else "arch"
    return identity in new and new[identity] != old.get(identity)


def _steps(path: str) -> list[str]:
    """`student[clnet].encoder` as `["student", "[clnet]", "encoder"]`; empty if it is not a path."""
    steps: list[str] = []
    for segment in path.split("."):
        match = _SEGMENT.match(segment)
        if match is None:
            return []
        steps += [match[1], *re.findall(r"\[[^\]]+\]", match[2])]
    return steps


def _set(node: Any, steps: list[str], value: Any, origin: Origin, name: str) -> None:
    """Set the value at the path `steps` below `node`, a section or a `one_of` with the dotted name `name`."""
    step, *rest = steps
    if step.startswith("["):
        _set_in_branch(node, step[1:-1], rest, value, origin, name)
    elif is_one_of(node):
        _set_in_all_branches(node, steps, value, origin, name)
    elif not _is_section(node):
        raise UserError(f"{origin}: {name} is a value, not a section: it has no key '{step}'")
    elif not rest:
        node.put(step, copy(value), origin)
    else:
        if node.get(step) is None:
            node.put(step, Tree(), origin)
        _set(node[step], rest, value, origin, join(name, step))


def _set_in_branch(node: Any, label: str, rest: list[str], value: Any, origin: Origin, name: str) -> None:
    branches = _branches(node)
    labels = branch_labels(branches)
    if label not in labels:
        known = did_you_mean(label, labels) if labels else " It has no branches."
        raise UserError(f"{origin}: {name} has no branch '{label}'.{known}")
    index = labels.index(label)
    if not rest:
        branches[index] = copy(value)
    else:
        _set(branches[index], rest, value, origin, f"{name}[{label}]")


def _set_in_all_branches(node: Tree, steps: list[str], value: Any, origin: Origin, name: str) -> None:
    branches = _branches(node)
    labels = branch_labels(branches)
    having = [(branch, label) for branch, label in zip(branches, labels, strict=True) if _has_key(branch, steps[0])]
    if not having:
        first = next((label for label, branch in zip(labels, branches, strict=True) if branch is not None), "0")
        raise UserError(
            f"{origin}: no branch of {name} has '{steps[0]}'; to add it to one, name the branch: "
            f"{name}[{first}].{steps[0]}"
        )
    for branch, label in having:
        _set(branch, steps, value, origin, f"{name}[{label}]")


def _has_key(branch: Any, key: str) -> bool:
    if is_one_of(branch):
        return any(_has_key(inner, key) for inner in _branches(branch))
    return isinstance(branch, Tree) and key in branch


def _branches(node: Any) -> list[Any]:
    branches = node["one_of"] if is_one_of(node) else []
    return branches if isinstance(branches, list) else []
