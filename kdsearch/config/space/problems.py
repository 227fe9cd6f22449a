"""Problems of a file: all of them, each with its place, in one `UserError`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kdsearch.config.named import PLUGIN_TAG
from kdsearch.config.space.ranges import RANGE_KEYS
from kdsearch.config.space.tree import OneOf, Section, join
from kdsearch.config.space.yaml_tree import Origin
from kdsearch.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Problem:
    """One line of an error: `search_spaces/clfd.yaml:12: distill.clfd.tua: unknown key. Did you mean 'tau'?`"""

    origin: Origin
    name: str
    message: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.origin, self.name, self.message)))


def problems_error(problems: Iterable[Problem]) -> UserError:
    """One error with one line per distinct problem."""
    return UserError("\n".join(dict.fromkeys(map(str, problems))))


def locate(error: ValidationError, root: Section, origin: Origin, params: Mapping[str, Any]) -> list[Problem]:
    """The validation errors of a sample of `root`, each at the key that caused it.

    `params` holds the branches that the sample took; `origin` is that of the whole tree.
    """
    return [Problem(*_place(detail, root, origin, params), _message(detail)) for detail in error.errors()]


def _place(detail: ErrorDetails, root: Section, origin: Origin, params: Mapping[str, Any]) -> tuple[Origin, str]:
    node: Any = root
    name = ""
    for key in _keys(detail):
        if not isinstance(node, Section):
            break
        if key not in node.children and key in (node.children.get("arch"), node.children.get("name"), PLUGIN_TAG):
            continue  # the tag of a union member, which pydantic adds to the location
        name, origin, node = join(name, key), node.origins.get(key, origin), node.children.get(key)
        while isinstance(node, OneOf):
            name, node = node.branch(name, params[name])
            if isinstance(node, Section):
                origin = next(iter(node.origins.values()), origin)
    return origin, name


def _keys(detail: ErrorDetails) -> list[str]:
    keys = [key for key in detail["loc"] if isinstance(key, str) and key != "[key]"]
    return [*keys, _tag(detail)] if detail["type"].startswith("union_tag") else keys


def _tag(detail: ErrorDetails) -> str:
    """The key that selects the member of a union: `arch`, or `name` of a sampler."""
    return str(detail["ctx"]["discriminator"]).strip("'")


_KINDS = {
    "dict_type": "should be a section",
    "model_type": "should be a section",
    "model_attributes_type": "should be a section",
    "tuple_type": "should be a list",
}


def _message(detail: ErrorDetails) -> str:
    kind, got = detail["type"], detail["input"]
    if kind == "missing" and isinstance(detail["loc"][-1], int):
        return f"too few values, got {list(got)!r}"
    if kind in ("missing", "union_tag_not_found"):
        return "missing key"
    if kind == "union_tag_invalid":
        known = [tag.strip(" '") for tag in detail["ctx"]["expected_tags"].split(",")]
        return f"unknown {_tag(detail)} '{detail['ctx']['tag']}'.{did_you_mean(detail['ctx']['tag'], known)}"
    if kind in ("extra_forbidden", "unknown_term", "value_error"):
        return detail["msg"].removeprefix("Value error, ")
    message = f"{_KINDS.get(kind, detail['msg'].removeprefix('Input '))}, got {got!r}"
    unknown = [key for key in got if key != "default"] if isinstance(got, dict) else []
    if len(unknown) == 1:
        message += f". If this is meant as a range:{did_you_mean(str(unknown[0]), list(RANGE_KEYS))}"
    return message
