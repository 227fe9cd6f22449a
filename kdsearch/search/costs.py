"""Costs of configurations before training, and the checks that a space has to pass before a study starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from kdsearch.config.metrics import Cost
from kdsearch.config.networks import AnyNetwork
from kdsearch.config.space.ranges import ends
from kdsearch.config.space.search_space import Sample, SearchSpace
from kdsearch.config.trial import TrialConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.models.cost import network_cost
from kdsearch.search.constraints import broken, check_names, static
from kdsearch.search.latency.cache import Latencies, measure_latencies, rank_correlation
from kdsearch.search.latency.enumerate import student_name, students
from kdsearch.search.latency.probe import OpenProbe
from kdsearch.train.requirements import check_trial
from kdsearch.train.teacher import teacher_trial


@dataclass(frozen=True)
class Candidate:
    """A student that the search may train: its network, its name, and its cost without latency."""

    network: AnyNetwork
    name: str
    cost: Cost


def check_space(space: SearchSpace, info: DatasetInfo, ranks: int = 1) -> None:
    """Raise `UserError` unless all students and terms of the space fit teacher, data, size and batch.

    Networks and terms are built on the meta device, at the defaults and at the ends of every range. `ranks` are those
    of a trial that normalise their part of the batch alone.
    """
    check_names(space, info)
    for corner, sample in [*space.corners(), *_smallest_batch(space)]:
        try:
            check_trial(sample.trial, info, ranks)
        except UserError as error:
            raise UserError(f"with {corner}: {error}" if corner else str(error)) from error


def _smallest_batch(space: SearchSpace) -> Iterator[tuple[str, Sample]]:
    """The default trial with the smallest batch, where the search draws it."""
    name = "train.batch_size"
    domain = space.parameters().get(name)
    if domain is not None:
        least = min(ends(domain))
        yield f"{name}={least}", space.from_params({name: least})


class Costs:
    """`Cost` of configurations; with latency once `measure` has been called."""

    def __init__(self, space: SearchSpace, store: Store) -> None:
        self.space, self.store = space, store
        self.latencies: Latencies | None = None

    def __call__(self, config: TrialConfig) -> dict[str, float]:
        """Costs by metric name. Raises `UserError` for a student that cannot be built, or measured, at the size."""
        latency = None if self.latencies is None else self.latencies.ms(config.student)
        return replace(self._counted(config), latency_ms=latency).to_dict()

    def _counted(self, config: TrialConfig) -> Cost:
        """The cost without latency."""
        return network_cost(config.student, self.store.info, config.data.size)

    def reference(self) -> dict[str, float]:
        """The corner that bounds the hypervolume: per cost its constraint, without one the teacher's cost."""
        bounds = self.of_teacher()
        if self.latencies is not None:
            bounds.setdefault("latency_ms", max(self.latencies.measured(), default=1.0))
        for name, constraint in self.space.search.constraints.items():
            if constraint.op == "<=":
                bounds[name] = constraint.bound
        return bounds

    def of_teacher(self) -> dict[str, float]:
        """The teacher's cost, or the default student's without a teacher; no latency if that could not be measured."""
        config = self.space.default().trial
        config = config if config.teacher is None else teacher_trial(config)
        try:
            return self(config)
        except UserError:
            return self._counted(config).to_dict()

    # ---- latency -------------------------------------------------------------------------------------------------

    def candidates(self) -> dict[str, Candidate]:
        """Students that the search may train, by their `network_key`.

        Those that cannot be built, or exceed a constraint on their cost without latency, are left out.
        """
        found = {}
        for key, sample in students(self.space).items():
            try:
                cost = self._counted(sample.trial)
            except UserError:
                continue  # its trial will be INFEASIBLE with the reason
            known = cost.to_dict()
            bounds = {name: bound for name, bound in static(self.space.search.constraints).items() if name in known}
            if not broken(bounds, known):
                found[key] = Candidate(sample.trial.student, student_name(sample), cost)
        return found

    def measure(self, run: RunFolder, open_probe: OpenProbe, on_progress: Callable[[int, int], None]) -> dict[str, Any]:
        """Measure the latency of all candidates and of the teacher. Returns `latency` of the summary.

        Raises `UserError` if that is not possible; see `measure_latencies`.
        """
        target, config = self.space.search.latency, self.space.default().trial
        assert target is not None
        candidates = self.candidates()
        wanted = [candidate.network for candidate in candidates.values()]
        wanted.append((config if config.teacher is None else teacher_trial(config)).student)
        info, size = self.store.info, config.data.size
        self.latencies = measure_latencies(run, target, wanted, info, size, open_probe, on_progress)
        measured = [(each, self.latencies.networks[key]) for key, each in candidates.items()]
        measured = sorted((pair for pair in measured if not pair[1].problem), key=lambda pair: pair[1].ms)
        rows = [
            {"student": each.name, **replace(each.cost, latency_ms=latency.ms).to_dict(), "spread": latency.spread}
            for each, latency in measured
        ]
        return {
            "target": str(target), "device": self.latencies.device, "torch": self.latencies.torch, "size": list(size),
            **rank_correlation([each.cost.gflops for each, _ in measured], [latency.ms for _, latency in measured]),
            "students": rows,
        }  # fmt: skip
