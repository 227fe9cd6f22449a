"""The trials of a space to measure, the most informative first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kdsearch.config.space.ranges import Choice, Int, IntLog, Log, Range
from kdsearch.config.space.search_space import Sample, SearchSpace
from kdsearch.config.trial import TrialConfig
from kdsearch.errors import UserError
from kdsearch.search.constraints import violations
from kdsearch.search.latency.enumerate import network_key

SAMPLES = 200
"""Random trials that represent those of the search."""


def draw(space: SearchSpace, costs: Callable[[TrialConfig], dict[str, float]]) -> list[tuple[Sample, float]]:
    """The default and random samples of the space that keep its constraints on costs, with their GFLOPs.

    `costs` returns the static costs of a trial's student. Raises `UserError` where no sample can be built and keeps the
    constraints.
    """
    rng = np.random.default_rng(space.search.seed)
    samples = [space.default(), *(space.sample(lambda _, domain: _any(domain, rng)) for _ in range(SAMPLES))]
    bounds = space.search.constraints
    found = []
    unfit = []
    for sample in samples:
        try:
            cost = costs(sample.trial)
        except UserError as error:
            unfit.append(str(error))  # a study reports it to the sampler and trains nothing
            continue
        # Bounds on metrics of training and of the target device cannot be checked here.
        if all(violation <= 0 for violation in violations(bounds, cost).values()):
            found.append((sample, cost["gflops"]))
    if len(unfit) == len(samples):
        raise UserError(f"none of {len(samples)} trials drawn from {space.name} can be trained: {unfit[0]}")
    if not found:
        raise UserError(
            f"none of {len(samples)} trials drawn from {space.name} keeps its constraints "
            f"({', '.join(f'{name} {bound}' for name, bound in bounds.items())}); loosen them."
        )
    return found


def representatives(drawn: list[tuple[Sample, float]]) -> list[tuple[str, Sample, float]]:
    """The first, the most and the least expensive of `drawn`, one per further set of terms, one per further student."""
    by_cost = sorted(drawn[1:] or drawn, key=lambda each: each[1])
    named = [("default", *drawn[0]), ("dearest", *by_cost[-1]), ("cheapest", *by_cost[0])]
    found: list[tuple[str, Sample, float]] = []
    students: set[str] = set()
    terms: set[frozenset[str]] = set()

    def take(name: str, sample: Sample, gflops: float) -> None:
        found.append((name, sample, gflops))
        students.add(network_key(sample.trial.student))
        terms.add(frozenset(sample.trial.distill))

    for each in named:
        if not any(each[1] is sample for _, sample, _ in found):
            take(*each)
    for sample, gflops in drawn:
        if frozenset(sample.trial.distill) not in terms:
            take("+".join(sample.trial.distill) or "no teacher", sample, gflops)
    for sample, gflops in drawn:
        if network_key(sample.trial.student) not in students:
            take("student", sample, gflops)
    return found


def _any(domain: Range, rng: np.random.Generator) -> object:
    """A random value of the range, as the random sampler draws it."""
    if isinstance(domain, Choice):
        return domain.options[int(rng.integers(len(domain.options)))]
    if isinstance(domain, Int):
        return int(rng.integers(domain.low, domain.high, endpoint=True))
    low, high = domain.low, domain.high
    if isinstance(domain, IntLog):
        return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))
    if isinstance(domain, Log):
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return float(rng.uniform(low, high))
