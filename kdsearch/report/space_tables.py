"""A space as rows of tables: the ranges of its settings, and how it is searched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdsearch.config.space.ranges import Choice, IntLog, Log

if TYPE_CHECKING:
    from kdsearch.config.space.search_space import SearchSpace


def setting_ranges(space: SearchSpace) -> list[tuple[str, str]]:
    """Each setting that the space searches, with its range in words."""

    def words(domain: Any) -> str:
        if isinstance(domain, Choice):
            return "one of " + ", ".join("none" if c is None else str(c) for c in domain.categories)
        scale = " (log scale)" if isinstance(domain, Log | IntLog) else ""
        return f"{domain.low:g} to {domain.high:g}{scale}"

    return [(name, words(domain)) for name, domain in space.parameters().items()]


def search_budget(space: SearchSpace) -> list[tuple[str, str]]:
    """The budget and the method of the search, in words."""
    search, train = space.search, space.default().trial.train
    rows = [
        ("trials", str(search.trials)),
        ("epochs per trial", str(train.epochs)),
        ("objectives", ", ".join(f"{name} ({direction})" for name, direction in search.objectives.items())),
        ("bounds", ", ".join(f"{name} {bound}" for name, bound in search.constraints.items()) or "none"),
        *([("latency", f"on {search.latency}")] if search.latency is not None else []),
        ("sampler", search.sampler.name),
        ("early stopping", f"{search.stop}, after epochs {', '.join(map(str, search.rungs))}" if search.rungs else "-"),
        ("repeats and controls", f"{space.confirm.seeds} seeds per point of the frontier"),
    ]
    return rows
