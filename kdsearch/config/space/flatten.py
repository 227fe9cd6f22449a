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
    """16 hexadecimal digits, equal for equal trials and stable between processes and machines.

    All trials of a study share the data set and the teacher's checkpoint, which are known by their content: where they
    lie is no part of a trial.
    """
    text = json.dumps(without_places(trial.model_dump(mode="json")), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_places(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a trial or a space without the paths of its data set and its teacher's checkpoint."""
    data, teacher = settings.get("data"), settings.get("teacher")
    if isinstance(data, dict):
        settings = {**settings, "data": {**data, "path": None}}
    if isinstance(teacher, dict):
        settings = {**settings, "teacher": {**teacher, "checkpoint": bool(teacher.get("checkpoint"))}}
    return settings


def _leaves(node: Any, name: str) -> Iterator[tuple[str, Scalar]]:
    if not isinstance(node, dict):
        yield name, category(node)
        return
    for key, child in node.items():
        yield from _leaves(child, join(name, key))
