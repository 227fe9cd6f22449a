"""From a few measured trials to the cost of a study."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kdsearch.config.space.search_space import Sample, SearchSpace
from kdsearch.config.trial import TrialConfig
from kdsearch.planning.measure import Measured, student_key
from kdsearch.search.stopping.rules import LEAST_COMPLETE

TURNAROUND_S = 0.3
"""From one trial of a worker group to its next; see benchmarks/results/trial_turnaround.md."""
FRONTIER = 5
"""Points that the frontier is taken to have, to say what confirming them costs."""


@dataclass(frozen=True)
class Setting:
    """What holds for all trials: images a split, ranks a trial, trials at a time, the share of a GPU a rank has."""

    train: int
    val: int
    ranks: int
    slots: int
    gpus: float

    @property
    def sharing(self) -> float:
        """How much slower a step is where trials share a GPU, which then has that much more to do."""
        return 1 / self.gpus if 0 < self.gpus < 1 else 1.0


@dataclass
class Model:
    """Seconds of any trial, from those measured: exact for a student that was, interpolated over GFLOPs for others."""

    setting: Setting
    students: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    teacher: list[float] = field(default_factory=list)
    terms: dict[str, list[float]] = field(default_factory=dict)
    rest: dict[frozenset[str], float] = field(default_factory=dict)

    def add(self, config: TrialConfig, gflops: float, measured: Measured) -> None:
        self.students[student_key(config)] = (gflops, measured.alone, measured.val)
        if config.distill:
            self.teacher.append(measured.teacher)
            self.rest[frozenset(config.distill)] = measured.rest
        for name, seconds in measured.terms.items():
            self.terms.setdefault(name, []).append(seconds)

    def image(self, config: TrialConfig, gflops: float, cached: bool = False) -> dict[str, float]:
        """Seconds an image of training, by part; of validation under `val`."""
        alone, val = self._student(config, gflops)
        parts = {"student": alone, "val": val, "teacher": 0.0, "terms": 0.0}
        if config.distill and self.teacher:
            parts["teacher"] = 0.0 if cached else statistics.mean(self.teacher)
            parts["terms"] = sum(statistics.mean(self.terms[name]) for name in config.distill if name in self.terms)
            parts["terms"] += self.rest.get(frozenset(config.distill), 0.0)
        return {name: seconds * self.setting.sharing for name, seconds in parts.items()}

    def epoch(self, config: TrialConfig, gflops: float, cached: bool = False) -> float:
        """Seconds of an epoch of training and its validation."""
        image = self.image(config, gflops, cached)
        steps = max(1, self.setting.train // config.train.batch_size)
        images = steps * config.train.batch_size
        trained = images * (image["student"] + image["teacher"] + image["terms"])
        return (trained + self.setting.val * image["val"]) / self.setting.ranks

    def _student(self, config: TrialConfig, gflops: float) -> tuple[float, float]:
        known = self.students.get(student_key(config))
        if known is not None:
            return known[1], known[2]
        points = sorted(self.students.values())
        x, alone, val = zip(*points, strict=True)
        return float(np.interp(gflops, x, alone)), float(np.interp(gflops, x, val))


@dataclass(frozen=True)
class Stage:
    """Trainings of one kind: slot-seconds and seconds of wall time, both between the least and the most."""

    name: str
    trainings: int
    slot_s: tuple[float, float]
    wall_s: tuple[float, float]


def stages(
    space: SearchSpace, model: Model, drawn: Sequence[tuple[Sample, float]], teacher_s: float | None, confirm: bool
) -> list[Stage]:
    """What a study consists of. `drawn` are samples of the space with their GFLOPs, `teacher_s` trains the teacher."""
    slots = model.setting.slots
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
    space: SearchSpace, model: Model, drawn: Sequence[tuple[Sample, float]], cached: bool, name: str = "search"
) -> Stage:
    """All trials of the search: at least with every rung stopping all that it may, at most with none stopped."""
    trials = space.search.trials
    most = trials * statistics.mean(full_seconds(model, sample.trial, gflops, cached) for sample, gflops in drawn)
    shares = [least_share(space, sample.trial.train.epochs) for sample, _ in drawn]
    least = most * statistics.mean(shares)
    slots = model.setting.slots
    return Stage(name, trials, (least, most), (_wall(least, trials, slots), _wall(most, trials, slots)))


def full_seconds(model: Model, config: TrialConfig, gflops: float, cached: bool = False) -> float:
    """Seconds of a training to its end."""
    return config.train.epochs * model.epoch(config, gflops, cached) + TURNAROUND_S


def seconds_alone(setting: Setting, config: TrialConfig, measured: Measured) -> float:
    """Seconds of the training of one network that no other says anything of: the teacher's."""
    model = Model(setting)
    model.add(config, 0.0, measured)
    return full_seconds(model, config, 0.0)


def least_share(space: SearchSpace, epochs: int) -> float:
    """The share of all epochs that is trained when every rung stops all that it may.

    A forecast needs some complete trials, until which it stops as `pareto` does; then it may stop all others at their
    first rung.
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
    """Slots that are never idle, apart from the last trainings when there are fewer of them than slots."""
    return slot_s / min(slots, trainings)
