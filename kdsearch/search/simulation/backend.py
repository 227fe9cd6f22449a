"""A study under a fake clock: learning curves are looked up instead of trained.

The controller, the record and the rungs are those of a real study; neither Ray nor torch takes part.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from kdsearch.search.trial_record import TrialRecord


class Study(Protocol):
    """What hands out trials and judges them: an `StudyController`, or anything compared with it."""

    def next_trial(self) -> TrialRecord | Literal["wait", "done"]: ...
    def on_report(self, trial_id: str, epoch: int, metrics: dict[str, float]) -> bool: ...
    def on_trial_end(self, trial_id: str, failure: str | None) -> None: ...


class Benchmark(Protocol):
    """What training would show."""

    def curve(self, record: TrialRecord) -> Sequence[float]:
        """mIoU after each epoch; the same for equal configurations."""
        ...

    def seconds(self, record: TrialRecord) -> float:
        """Time of one epoch."""
        ...


@dataclass(frozen=True)
class Completed:
    """A trial that reached its last epoch: when, by the clock and in epochs that all trials had trained until then."""

    record: TrialRecord
    seconds: float
    epochs: int


def simulate(study: Study, landscape: Benchmark, slots: int, epochs: int) -> list[Completed]:
    """Run `study` on `slots` trials at a time until they have trained `epochs` epochs in all, or it has nothing more.

    Ends of epochs come in the order of the fake clock, those at the same time in the order in which trials started.
    Returns the trials that were completed, in that order; those in hand at the end are left running.
    """
    clock, trained, started = 0.0, 0, 0
    ends: list[tuple[float, int, TrialRecord, Sequence[float]]] = []
    completed: list[Completed] = []
    while trained < epochs:
        while len(ends) < slots and isinstance(record := study.next_trial(), TrialRecord):
            heapq.heappush(ends, (clock + landscape.seconds(record), started, record, landscape.curve(record)))
            started += 1
        if not ends:
            break
        clock, order, record, curve = heapq.heappop(ends)
        trained += 1
        epoch, seconds = record.epoch + 1, landscape.seconds(record)
        if study.on_report(record.id, epoch, {"val/miou": curve[epoch - 1], "time/train_s": seconds}):
            heapq.heappush(ends, (clock + seconds, order, record, curve))
            continue
        study.on_trial_end(record.id, None)
        if record.epoch == record.config.train.epochs:
            completed.append(Completed(record, clock, trained))
    return completed
