"""A search space in full: every setting that its file omits is written out with its default, every path absolute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from kdsearch.config.space.ranges import Choice, Int, IntLog, Log, Uniform
from kdsearch.config.space.tree import Node, OneOf, Section, branch_labels, join

Document = Callable[[Mapping[str, str]], BaseModel]
"""Returns the sample of the space that takes the given branches and has everything else at its default."""


def written_out(root: Section, raw: Mapping[str, Any], document: Document) -> dict[str, Any]:
    """`raw`, the plain tree of the space `root`, completed with all defaults; it yields the same trials."""
    complete: dict[str, Any] = _written_out(root, raw, "", {}, (), document)
    return complete


def _written_out(
    node: Node, raw: Any, name: str, taken: Mapping[str, str], keys: tuple[str, ...], document: Document
) -> Any:
    """`keys` is the path from the document to this node's value; `taken` are the branches in which it exists."""
    match node:
        case OneOf():
            branches = []
            for label, each in zip(node.branches, raw["one_of"], strict=True):
                branch_name, branch = node.branch(name, label)
                branches.append(_written_out(branch, each, branch_name, {**taken, name: label}, keys, document))
            _keep_labels(branches, node, raw["one_of"])
            return {"one_of": branches, "default": raw.get("default", node.default)}
        case Choice() if keys[-1] == "encoder_weights":
            values = [_at(document({**taken, name: each}), keys) for each in raw["choice"]]
            default = raw.get("default", node.default)
            return {"choice": values, "default": values[raw["choice"].index(default)]}
        case Uniform() | Log() | Int() | IntLog() | Choice():
            return {**raw, "default": raw.get("default", node.default)}
        case Section():
            children = {
                key: _written_out(child, raw[key], join(name, key), taken, (*keys, key), document)
                for key, child in node.children.items()
            }
            value = _at(document(taken), keys)
            if not isinstance(value, BaseModel):
                return children
            default = value.model_dump(mode="json")
            return children | {key: each for key, each in default.items() if key not in children}
        case _:
            # A plain value. A model that may be written as a scalar, such as a sampler by its name, stays a scalar.
            value = _at(document(taken), keys) if isinstance(raw, str) else raw
            return value if isinstance(value, str) else raw  # of a path, the absolute one


def _keep_labels(branches: list[Any], node: OneOf, raw: list[Any]) -> None:
    """Take defaults out of branches where they would change the labels, which are part of parameter names."""
    wanted = list(node.branches)
    for at, given in enumerate(raw):
        if branch_labels(branches)[at] == wanted[at]:
            continue
        own = {key: value for key, value in branches[at].items() if key in given or key not in ("arch", "name", "mode")}
        branches[at] = own
    for at, given in enumerate(raw):
        if branch_labels(branches)[at] != wanted[at]:
            branches[at] = given


def _at(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        value = getattr(value, key) if isinstance(value, BaseModel) else value[key]
    return value
