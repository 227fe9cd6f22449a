"""A trial as one row of a table, and as a key that identifies equal trials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from kdsearch.config.space.ranges import Scalar, category
from kdsearch.config.space.tree import join
from kdsearch.config.trial import TrialConfig


def flatten(trial: TrialConfig) -> dict[str, Scalar]:
    """Every setting by its dotted name, such as `student.encoder`; lists as JSON text."""
    return dict(_leaves(trial.model_dump(mode="json"), ""))


def trial_key(trial: TrialConfig) -> str:
    """16 hexadecimal digits, equal for equal trials and stable between processes and machines."""
    text = json.dumps(trial.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _leaves(node: Any, name: str) -> Iterator[tuple[str, Scalar]]:
    if not isinstance(node, dict):
        yield name, category(node)
        return
    for key, child in node.items():
        yield from _leaves(child, join(name, key))
