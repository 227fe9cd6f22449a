"""Ranges of a space as Optuna's distributions."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from kdsearch.config.space.ranges import Choice, Int, IntLog, Log, Range


def distribution(domain: Range) -> BaseDistribution:
    """The distribution of a range."""
    match domain:
        case Choice():
            return CategoricalDistribution(domain.categories)
        case Int() | IntLog():
            return IntDistribution(domain.low, domain.high, log=isinstance(domain, IntLog))
        case _:
            return FloatDistribution(domain.low, domain.high, log=isinstance(domain, Log))


def suggest(trial: optuna.Trial, name: str, domain: Range) -> Any:
    """The value that the sampler suggests for a parameter of `trial`."""
    match domain:
        case Choice():
            return trial.suggest_categorical(name, domain.categories)
        case Int() | IntLog():
            return trial.suggest_int(name, domain.low, domain.high, log=isinstance(domain, IntLog))
        case _:
            return trial.suggest_float(name, domain.low, domain.high, log=isinstance(domain, Log))
