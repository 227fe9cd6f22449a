"""The simulator backend: a study under a fake clock, whose learning curves are looked up instead of trained.

Controller, storage and stop rule are those of a real study; neither Ray nor torch takes part.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from kdsearch.search.trial_record import TrialRecord


class SimulatedStudy(Protocol):
    """The part of `StudyController` that the simulator drives; another search method may implement it too."""

    def next_trial(self) -> TrialRecord | Literal["wait", "done"]: ...
    def on_report(self, trial_id: str, epoch: int, metrics: dict[str, float]) -> bool: ...
    def on_trial_end(self, trial_id: str, failure: str | None) -> None: ...


class Benchmark(Protocol):
    """Learning curves and training times of all configurations of a space."""

    def curve(self, trial: TrialRecord) -> Sequence[float]:
        """mIoU after each epoch; the same for equal configurations."""
        ...

    def seconds(self, trial: TrialRecord) -> float:
        """Duration of one epoch."""
        ...


@dataclass(frozen=True)
class CompletedTrial:
    """A trial that reached its last epoch: at which time, and after how many epochs of all trials together."""

    record: TrialRecord
    seconds: float
    epochs: int


class SimulatorBackend:
    """Runs studies on a benchmark, up to `slots` trials at a time."""

    def __init__(self, benchmark: Benchmark, slots: int) -> None:
        self.benchmark, self.slots = benchmark, slots

    def run(self, study: SimulatedStudy, epochs: int) -> list[CompletedTrial]:
        """Run `study` until its trials have trained `epochs` epochs in all, or until it has no more trials.

        Epochs end in the order of the fake clock; of those that end at the same time, the trial that started first
        comes first. Returns the completed trials in that order; trials that have not ended by then stay running.
        """
        benchmark = self.benchmark
        clock, trained, started = 0.0, 0, 0
        ends: list[tuple[float, int, TrialRecord, Sequence[float]]] = []
        completed: list[CompletedTrial] = []
        while trained < epochs:
            while len(ends) < self.slots and isinstance(trial := study.next_trial(), TrialRecord):
                heapq.heappush(ends, (clock + benchmark.seconds(trial), started, trial, benchmark.curve(trial)))
                started += 1
            if not ends:
                break
            clock, order, trial, curve = heapq.heappop(ends)
            trained += 1
            epoch, seconds = trial.epoch + 1, benchmark.seconds(trial)
            if study.on_report(trial.id, epoch, {"val/miou": curve[epoch - 1], "time/train_s": seconds}):
                heapq.heappush(ends, (clock + seconds, order, trial, curve))
                continue
            study.on_trial_end(trial.id, None)
            if trial.epoch == trial.config.train.epochs:
                completed.append(CompletedTrial(trial, clock, trained))
        return completed
