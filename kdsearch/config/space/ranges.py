"""The five kinds of range that a leaf of a search space may hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdsearch.errors import did_you_mean

Scalar = bool | int | float | str | None


class RangeError(ValueError):
    """A malformed range. The message names no place in a file; the caller adds it."""


@dataclass(frozen=True)
class Uniform:
    """A number between `low` and `high`."""

    low: float
    high: float
    default: float


@dataclass(frozen=True)
class Log:
    """A number between `low` and `high`, uniform on a logarithmic scale."""

    low: float
    high: float
    default: float


@dataclass(frozen=True)
class Int:
    """An integer from `low` to `high`, both included."""

    low: int
    high: int
    default: int


@dataclass(frozen=True)
class IntLog:
    """An integer from `low` to `high`, both included, uniform on a logarithmic scale."""

    low: int
    high: int
    default: int


@dataclass(frozen=True)
class Choice:
    """One of `options`: scalars, lists or mappings.

    A sampler sees each option as its *category*: the option itself, or its JSON text for a list or a mapping.
    """

    options: tuple[Any, ...]
    default: Any

    @property
    def categories(self) -> tuple[Scalar, ...]:
        return tuple(category(option) for option in self.options)

    def option(self, value: Any) -> Any:
        """The option for `value`, an option or a category. Raises `RangeError` if there is none."""
        for option, known in zip(self.options, self.categories, strict=True):
            if value in (option, known):
                return option
        raise RangeError(f"{value!r} is not one of {', '.join(map(repr, self.categories))}")


Range = Uniform | Log | Int | IntLog | Choice

_FLOATS: dict[str, type[Uniform | Log]] = {"uniform": Uniform, "log": Log}
_INTEGERS: dict[str, type[Int | IntLog]] = {"int": Int, "int_log": IntLog}
RANGE_KEYS = (*_FLOATS, *_INTEGERS, "choice")


def category(option: Any) -> Scalar:
    """The scalar that represents an option in samplers and tables."""
    return json.dumps(option) if isinstance(option, list | dict) else option


def ends(domain: Range) -> tuple[Any, ...]:
    """Values to validate in place of the whole range: both ends, or every option."""
    return domain.options if isinstance(domain, Choice) else (domain.low, domain.high)


def is_range(node: Any) -> bool:
    """Whether a node of a tree has a key of a range, well formed or not."""
    return isinstance(node, Mapping) and any(key in node for key in RANGE_KEYS)


def parse_range(node: Mapping[str, Any]) -> Range:
    """Parse a range such as `{log: [a, b], default: c}`. Raises `RangeError`."""
    kinds = [key for key in node if key in RANGE_KEYS]
    if len(kinds) > 1:
        raise RangeError(f"a range has one kind, found {' and '.join(kinds)}")
    kind = kinds[0]
    for key in node:
        if key not in (kind, "default"):
            raise RangeError(f"unknown key '{key}' beside '{kind}'.{did_you_mean(key, ['default'])}")
    return _parse_choice(node) if kind == "choice" else _parse_numeric(kind, node)


def _parse_choice(node: Mapping[str, Any]) -> Choice:
    options = node["choice"]
    if not isinstance(options, list) or not options:
        raise RangeError(f"choice needs a list of at least one option, got {options!r}")
    choice = Choice(tuple(options), options[0])
    for index, known in enumerate(choice.categories):
        if known in choice.categories[:index]:
            raise RangeError(f"choice has the option {known!r} twice")
    if "default" not in node:
        return choice
    try:
        return Choice(choice.options, choice.option(node["default"]))
    except RangeError as error:
        raise RangeError(f"default {error}") from None


def _parse_numeric(kind: str, node: Mapping[str, Any]) -> Uniform | Log | Int | IntLog:
    bounds = node[kind]
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise RangeError(f"{kind} needs two numbers, [low, high], got {bounds!r}")
    integral, logarithmic = kind in ("int", "int_log"), kind in ("log", "int_log")
    for value in (*bounds, *([node["default"]] if "default" in node else [])):
        if not _is_number(value, integral):
            raise RangeError(f"{kind} needs {'integers' if integral else 'finite numbers'}, got {value!r}")
    low, high = bounds
    if low >= high:
        raise RangeError(f"empty range: {low} is not below {high}")
    if logarithmic and low <= 0:
        raise RangeError(
            f"{kind} cannot start at {low}, a log scale never reaches 0: use a small positive lower end, "
            "or switch the term off with a `one_of: [null, {...}]` branch"
        )
    middle = math.sqrt(low * high) if logarithmic else (low + high) / 2
    default = node.get("default", round(middle) if integral else middle)
    if not low <= default <= high:
        raise RangeError(f"default {default} is outside [{low}, {high}]")
    if integral:
        return _INTEGERS[kind](low, high, default)
    return _FLOATS[kind](float(low), float(high), float(default))


def _is_number(value: Any, integral: bool) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (not integral and isinstance(value, float) and math.isfinite(value))
