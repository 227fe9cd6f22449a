"""Trials of one space mapped to another: the settings that can be kept, and the reason for each that cannot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdsearch.config.space.flatten import flatten, trial_key
from kdsearch.config.space.ranges import Choice, Int, IntLog, Range, category
from kdsearch.config.space.search_space import Sample, SearchSpace
from kdsearch.config.trial import TrialConfig

_MISSING = object()


@dataclass(frozen=True)
class SpaceMapping:
    """A trial of another space and the nearest `sample` of this one.

    `dropped` maps each parameter that could not be kept to the reason; `new` are parameters that the other trial did
    not have, at this space's default. `exact` means that the two configurations are equal.
    """

    sample: Sample
    dropped: dict[str, str]
    new: tuple[str, ...]
    exact: bool


def map_trial(space: SearchSpace, config: TrialConfig, params: Mapping[str, Any]) -> SpaceMapping:
    """The sample of `space` nearest to a trial with `params` and, for settings that were fixed there, `config`."""
    settings = config.model_dump(mode="json")
    dropped: dict[str, str] = {}
    new: list[str] = []

    def choose(name: str, domain: Range) -> Any:
        value = params[name] if name in params else _setting(settings, name, domain)
        if value is _MISSING:
            new.append(name)
            return domain.default
        reason = _reason_outside(value, domain)
        if reason:
            dropped[name] = reason
            return domain.default
        return value

    sample = space.sample(choose)
    exact = trial_key(sample.trial) == trial_key(config)
    if not exact:
        ours = flatten(sample.trial)
        for name, value in params.items():
            if name not in sample.params and ours.get(_path(name)) != value:
                dropped[name] = f"{_short(value)} is not a parameter here"
    return SpaceMapping(sample, dropped, tuple(new), exact)


def differences(mapping: SpaceMapping, config: TrialConfig) -> list[str]:
    """Why a mapping is not exact: the reasons of dropped parameters or, without any, the settings that differ."""
    if mapping.dropped:
        return [f"{name}: {reason}" for name, reason in mapping.dropped.items()]
    ours, theirs = flatten(mapping.sample.trial), flatten(config)
    return [
        f"{name} is {_short(ours.get(name))} here, {_short(theirs.get(name))} there"
        for name in [*ours, *(name for name in theirs if name not in ours)]
        if ours.get(name, _MISSING) != theirs.get(name, _MISSING)
    ]


def _path(name: str) -> str:
    """The dotted name of a parameter in a configuration: `student.width` for `student[clnet].width`."""
    return re.sub(r"\[[^\]]*\]", "", name)


def _setting(settings: Any, name: str, domain: Range) -> Any:
    """The value that a configuration has in place of a parameter; of a branch, its label."""
    node = settings
    for key in _path(name).split("."):
        if not isinstance(node, Mapping) or key not in node:
            # A term that is missing was switched off, if the parameter has a category for that.
            off = isinstance(domain, Choice) and "none" in domain.categories
            return "none" if off else _MISSING
        node = node[key]
    if not isinstance(domain, Choice):
        return node
    value = category(node)
    if value in domain.categories:
        return value
    labels: list[Any] = ["none"] if node is None else []
    if isinstance(node, Mapping):
        labels = [*(node.get(key) for key in ("arch", "name", "mode")), "+".join(node), "on"]
    return next((label for label in labels if isinstance(label, str) and label in domain.categories), value)


def _reason_outside(value: Any, domain: Range) -> str:
    """Why `value` is not in `domain`; empty if it is."""
    if isinstance(domain, Choice):
        if any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in domain.categories):
            return ""
        return f"{_short(value)} is not one of {', '.join(map(_short, domain.categories))}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{_short(value)} is not a number"
    if isinstance(domain, Int | IntLog) and value != int(value):
        return f"{_short(value)} is not an integer"
    if not domain.low <= value <= domain.high:
        return f"{_short(value)} is outside [{_short(domain.low)}, {_short(domain.high)}]"
    return ""


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
