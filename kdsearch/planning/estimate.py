"""The cost of a study, from a few measured trials."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kdsearch.config.space.search_space import Sample, SearchSpace
from kdsearch.config.trial import TrialConfig
from kdsearch.planning.measure import Measurement
from kdsearch.search.latency.enumerate import network_key
from kdsearch.search.stopping.rules import LEAST_COMPLETE

TURNAROUND_S = 0.3
"""Seconds between two trials of a worker group; see benchmarks/results/trial_turnaround.md."""
FRONTIER = 5
"""Assumed number of frontier points, for the cost of their repeats and controls."""


@dataclass(frozen=True)
class StudySetup:
    """Values that all trials share: images per split, ranks per trial, concurrent trials, GPUs per rank."""

    train: int
    val: int
    ranks: int
    slots: int
    gpus: float

    @property
    def sharing(self) -> float:
        """The factor by which a step is slower where trials share a GPU."""
        return 1 / self.gpus if 0 < self.gpus < 1 else 1.0


@dataclass
class TimeModel:
    """Seconds of any trial: as measured for a measured student, interpolated over GFLOPs for others."""

    setup: StudySetup
    students: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    teacher: list[float] = field(default_factory=list)
    terms: dict[str, list[float]] = field(default_factory=dict)
    rest: dict[frozenset[str], float] = field(default_factory=dict)

    def add(self, config: TrialConfig, gflops: float, measured: Measurement) -> None:
        self.students[network_key(config.student)] = (gflops, measured.alone, measured.val)
        if config.distill:
            self.teacher.append(measured.teacher)
            self.rest[frozenset(config.distill)] = measured.rest
        for name, seconds in measured.terms.items():
            self.terms.setdefault(name, []).append(seconds)

    def image(self, config: TrialConfig, gflops: float, cached: bool = False) -> dict[str, float]:
        """Seconds per training image by part; `val` is per validation image."""
        alone, val = self._student(config, gflops)
        parts = {"student": alone, "val": val, "teacher": 0.0, "terms": 0.0}
        if config.distill and self.teacher:
            parts["teacher"] = 0.0 if cached else statistics.mean(self.teacher)
            parts["terms"] = sum(statistics.mean(self.terms[name]) for name in config.distill if name in self.terms)
            parts["terms"] += self.rest.get(frozenset(config.distill), 0.0)
        return {name: seconds * self.setup.sharing for name, seconds in parts.items()}

    def epoch(self, config: TrialConfig, gflops: float, cached: bool = False) -> float:
        """Seconds per epoch, validation included."""
        image = self.image(config, gflops, cached)
        steps = max(1, self.setup.train // config.train.batch_size)
        images = steps * config.train.batch_size
        trained = images * (image["student"] + image["teacher"] + image["terms"])
        return (trained + self.setup.val * image["val"]) / self.setup.ranks

    def _student(self, config: TrialConfig, gflops: float) -> tuple[float, float]:
        known = self.students.get(network_key(config.student))
        if known is not None:
            return known[1], known[2]
        points = sorted(self.students.values())
        x, alone, val = zip(*points, strict=True)
        return float(np.interp(gflops, x, alone)), float(np.interp(gflops, x, val))


@dataclass(frozen=True)
class Stage:
    """Trainings of one kind: slot-seconds and seconds of wall time, each as least and most."""

    name: str
    trainings: int
    slot_s: tuple[float, float]
    wall_s: tuple[float, float]


def stages(
    space: SearchSpace, model: TimeModel, drawn: Sequence[tuple[Sample, float]], teacher_s: float | None, confirm: bool
) -> list[Stage]:
    """The stages of a study. `drawn` are samples of the space with their GFLOPs; `teacher_s` trains the teacher."""
    slots = model.setup.slots
    cached = any(sample.trial.teacher is not None and sample.trial.teacher.cache != "off" for sample, _ in drawn)
    found = []
    if teacher_s is not None:
        found.append(Stage("teacher", 1, (teacher_s, teacher_s), (teacher_s, teacher_s)))
    found.append(search_stage(space, model, drawn, cached))
    if confirm and space.confirm.seeds:
        members = min(FRONTIER, space.search.trials)
        live = [full_seconds(model, sample.trial, gflops, cached and space.confirm.cache) for sample, gflops in drawn]
        control = [
            full_seconds(model, sample.trial.model_copy(update={"teacher": None, "distill": {}}), gflops)
            for sample, gflops in drawn
        ]
        trainings = 2 * members * space.confirm.seeds
        seconds = members * space.confirm.seeds * (statistics.mean(live) + statistics.mean(control))
        found.append(Stage("confirm", trainings, (seconds, seconds), (_wall(seconds, trainings, slots),) * 2))
    return found


def search_stage(
    space: SearchSpace, model: TimeModel, drawn: Sequence[tuple[Sample, float]], cached: bool, name: str = "search"
) -> Stage:
    """All trials of the search: at least with as many stopped at every rung as allowed, at most with none stopped."""
    trials = space.search.trials
    most = trials * statistics.mean(full_seconds(model, sample.trial, gflops, cached) for sample, gflops in drawn)
    shares = [least_share(space, sample.trial.train.epochs) for sample, _ in drawn]
    least = most * statistics.mean(shares)
    slots = model.setup.slots
    return Stage(name, trials, (least, most), (_wall(least, trials, slots), _wall(most, trials, slots)))


def full_seconds(model: TimeModel, config: TrialConfig, gflops: float, cached: bool = False) -> float:
    """Seconds of one full training."""
    return config.train.epochs * model.epoch(config, gflops, cached) + TURNAROUND_S


def seconds_alone(setup: StudySetup, config: TrialConfig, measured: Measurement) -> float:
    """Seconds of one full training from its own measurement alone: the teacher's."""
    model = TimeModel(setup)
    model.add(config, 0.0, measured)
    return full_seconds(model, config, 0.0)


def least_share(space: SearchSpace, epochs: int) -> float:
    """The share of all epochs that is trained if every rung stops as many trials as allowed.

    `forecast` stops as `pareto` does until it has enough complete trials; then it may stop all others at their first
    rung.
    """
    search = space.search
    rungs = [] if search.stop == "none" else [rung for rung in search.rungs if rung < epochs]
    halving, share, before = 0.0, 1.0, 0
    for rung in (*rungs, epochs):
        halving += share * (rung - before) / epochs
        share, before = share / search.reduction, rung
    if search.stop != "forecast" or not rungs:
        return halving
    opening: int = LEAST_COMPLETE * search.reduction ** len(rungs)
    first = min(opening, search.trials)
    return (first * halving + (search.trials - first) * rungs[0] / epochs) / search.trials


def _wall(slot_s: float, trainings: int, slots: int) -> float:
    """Slots are never idle, except at the last trainings if they are fewer than the slots."""
    return slot_s / min(slots, trainings)
