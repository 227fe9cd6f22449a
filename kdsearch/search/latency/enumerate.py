"""Enumeration of all student networks of a space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kdsearch.config.networks import AnyNetwork, CLNetConfig, network_name, without_weights
from kdsearch.config.space.ranges import Choice, Int, IntLog, Range
from kdsearch.config.space.search_space import Sample, SearchSpace
from kdsearch.errors import UserError

MOST = 256
"""Maximum number of students: measuring more would take longer than it is worth."""


def network_key(config: AnyNetwork) -> str:
    """JSON that identifies a network apart from its weights."""
    return without_weights(config).model_dump_json()


def students(space: SearchSpace) -> dict[str, Sample]:
    """One sample per distinct student of the space, by its `network_key`; other settings have their defaults.

    The default student comes first. Raises `UserError` for more than `MOST` students.
    """
    found: dict[str, Sample] = {}
    for sample in _samples(space):
        found.setdefault(network_key(sample.trial.student), sample)
        if len(found) > MOST:
            raise UserError(
                f"The space {space.name} has more than {MOST} students, and the latency of each is measured before "
                "training; give student settings fewer values with --set 'student....={choice: [...]}'."
            )
    return found


def _samples(space: SearchSpace) -> Iterator[Sample]:
    pending: list[Mapping[str, Any]] = [{}]
    while pending:
        given = pending.pop(0)
        chosen = dict(given)

        def choose(name: str, domain: Range, chosen: dict[str, Any] = chosen) -> Any:
            if not name.startswith("student"):
                return domain.default
            if name not in chosen:
                first, *others = _values(name, domain)
                pending.extend({**chosen, name: other} for other in others)
                chosen[name] = first
            return chosen[name]

        yield space.sample(choose)


def _values(name: str, domain: Range) -> list[Any]:
    """Every value of a range, its default first."""
    if isinstance(domain, Choice):
        values = list(domain.options)
    elif isinstance(domain, Int | IntLog) and domain.high - domain.low < MOST:
        values = list(range(domain.low, domain.high + 1))
    else:
        raise UserError(
            f"{name} has too many values, since the latency of each student is measured before training; give it a few "
            f"with --set '{name}={{choice: [...]}}'."
        )
    return sorted(values, key=lambda value: value != domain.default)


def student_name(sample: Sample) -> str:
    """`network_name` of the student, and its other settings that the space searches."""
    student = sample.trial.student
    named = ("arch", "encoder", "width") if isinstance(student, CLNetConfig) else ("arch", "encoder")
    words = [network_name(student)]
    for name, value in sample.params.items():
        section, _, setting = name.rpartition(".")
        if section.startswith("student") and setting not in named:
            words.append(f"{setting}={value}")
    return " ".join(words)
