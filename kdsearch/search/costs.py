"""What configurations cost before they are trained, and what has to hold for any of them before a study starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kdsearch.config.networks import AnyNetwork
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.config.trial import TrialConfig
from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.models.cost import network_cost
from kdsearch.models.registry import build_network
from kdsearch.search.constraints import broken, check_names, static
from kdsearch.search.latency.cache import Latencies, LatencyProbe, latencies, rank_correlation
from kdsearch.search.latency.enumerate import describe, students
from kdsearch.train.requirements import requirements_of
from kdsearch.train.teacher import teacher_trial


class Costs:
    """`gflops` and `params_m` of configurations, and `latency_ms` where the space names a device for it."""

    def __init__(self, space: SearchSpace, store: Store) -> None:
        self.space, self.store = space, store
        self.latencies: Latencies | None = None

    def __call__(self, config: TrialConfig) -> dict[str, float]:
        """Raises `UserError` for a student that cannot be built, or measured, at the size."""
        found = self._counted(config)
        if self.latencies is not None:
            found["latency_ms"] = self.latencies.ms(config.student)
        return found

    def _counted(self, config: TrialConfig) -> dict[str, float]:
        cost = network_cost(config.student, self.store.info, config.data.size)
        return {"gflops": cost.gflops, "params_m": cost.params_m}

    def check(self) -> None:
        """The space can be trained: weights load, and every student and set of terms fits teacher, data and size.

        Networks and terms are built on the meta device, at the default and at the ends of every range.
        """
        config, info = self.space.default().trial, self.store.info
        if not info.video and (config.data.consistency or config.data.frames == "video"):
            raise UserError(
                f"the data set {info.name} has single images: set data.frames to views and data.consistency to false, "
                "or choose a video set (camvid with option flow, scenes)."
            )
        check_names(self.space, info)
        for corner, sample in self.space.corners():
            try:
                self._counted(sample.trial)
                if sample.trial.teacher is not None:
                    requirements_of(sample.trial, info)
            except UserError as error:
                raise UserError(f"with {corner}: {error}" if corner else str(error)) from error
        build_network(config.student, info)
        if config.teacher is not None:
            build_network(config.teacher.network(), info)

    def reference(self) -> dict[str, float]:
        """The corner that bounds the hypervolume: the constraint where there is one, else the teacher's cost."""
        bounds = self.of_teacher()
        if self.latencies is not None:
            bounds.setdefault("latency_ms", max(self.latencies.measured(), default=1.0))
        for name, constraint in self.space.search.constraints.items():
            if constraint.op == "<=":
                bounds[name] = constraint.bound
        return bounds

    def of_teacher(self) -> dict[str, float]:
        """The teacher's cost, or the default student's without one; without a latency that could not be measured."""
        config = self.space.default().trial
        config = config if config.teacher is None else teacher_trial(config)
        try:
            return self(config)
        except UserError:
            return self._counted(config)

    # ---- latency -------------------------------------------------------------------------------------------------

    def networks(self) -> dict[str, tuple[str, dict[str, float]]]:
        """Students that the search may train, by their key: in words, and what is known of their cost without a device.

        Those that cannot be built, or break a bound on FLOPs or parameters, are not among them.
        """
        found = {}
        bounds = {k: v for k, v in static(self.space.search.constraints).items() if k != "latency_ms"}
        for key, sample in students(self.space).items():
            try:
                cost = self._counted(sample.trial)
            except UserError:
                continue  # the record says so when it is asked for
            if not broken(bounds, cost):
                found[key] = describe(sample), cost
        return found

    def measure(
        self,
        run: RunFolder,
        stopwatch: Callable[[str | None], LatencyProbe],
        advance: Callable[[int, int], None],
    ) -> dict[str, Any]:
        """Find out the latency of all students and the teacher. Returns what the summary says of it.

        Raises `UserError` where that is not possible; see `latencies`.
        """
        target, config = self.space.search.latency, self.space.default().trial
        assert target is not None
        mine = self.networks()
        samples = students(self.space)
        wanted: list[AnyNetwork] = [samples[key].trial.student for key in mine]
        wanted.append((config if config.teacher is None else teacher_trial(config)).student)
        info, size = self.store.info, config.data.size
        self.latencies = latencies(run, target, wanted, info, size, stopwatch, advance)
        known = {key: each for key in mine if not (each := self.latencies.of[key]).problem}
        rows = [
            {"student": mine[key][0], **mine[key][1], "latency_ms": each.ms, "spread": each.spread}
            for key, each in sorted(known.items(), key=lambda item: item[1].ms)
        ]
        return {
            "target": str(target), "device": self.latencies.device, "torch": self.latencies.torch, "size": list(size),
            **rank_correlation([mine[key][1]["gflops"] for key in known], [each.ms for each in known.values()]),
            "students": rows,
        }  # fmt: skip
