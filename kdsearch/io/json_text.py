"""JSON as the standard has it: no NaN and no infinity, which other readers refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

Key = TypeVar("Key")


def to_json(value: Any, **options: Any) -> str:
    """`value` as JSON text; `options` are those of `json.dumps`. `ValueError` names a number that is not finite."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        for path, number in _not_finite(value):
            raise ValueError(f"JSON has no {number}, which is the value of {path or 'the whole'}") from None
        raise


def _not_finite(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _not_finite(each, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _not_finite(each, f"{path}[{index}]")


def with_nulls(value: Any) -> Any:
    """A copy of mappings, lists and numbers in which a number that is not finite is None."""
    if isinstance(value, Mapping):
        return {str(key): with_nulls(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [with_nulls(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def finite(metrics: Mapping[Key, float]) -> dict[Key, float]:
    """The metrics that are finite; a NaN or an infinity stands for a missing one."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
