"""All student networks of a space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kdsearch.config.networks import AnyNetwork, without_weights
from kdsearch.config.space.ranges import Choice, Int, IntLog, Range
from kdsearch.config.space.search_space import Sample, SearchSpace
from kdsearch.errors import UserError

MOST = 256
"""Students beyond which they are not enumerated: to measure each would take longer than it is worth."""


def network_key(config: AnyNetwork) -> str:
    """A network by what it is, whatever its weights: JSON."""
    return without_weights(config).model_dump_json()


def students(space: SearchSpace) -> dict[str, Sample]:
    """One sample for each distinct student of the space by its `network_key`, the rest at its default; the default
    student first. Raises `UserError` where there are more than `MOST`, or endlessly many.
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


def describe(sample: Sample) -> str:
    """A student in words: architecture, encoder, and what else of it is searched."""
    student = sample.trial.student
    words = [student.arch, student.encoder]
    for name, value in sample.params.items():
        section, _, setting = name.rpartition(".")
        if section.startswith("student") and setting not in ("arch", "encoder"):
            words.append(f"{setting}={value}")
    return " ".join(words)
