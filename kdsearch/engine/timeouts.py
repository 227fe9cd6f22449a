"""Timeouts of the worker groups: how long a study waits before it takes them for hung."""

from __future__ import annotations

from dataclasses import dataclass

SLOWER = 10.0
"""Factor by which an epoch may exceed the longest epoch so far."""
EPOCH_S = 600.0
"""Seconds that any epoch may take."""
FIRST_S = 7200.0
"""Seconds that building a trial, and its first epoch, may take: no earlier trial is a measure of them, since the
student may be larger than any before, and the first trial may write the teacher cache."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds that a worker group may take: `group_s` to start, `epoch_s` per epoch and for building a trial.

    Without `epoch_s` the limit follows from the epochs of the study so far; see `of_epoch`.
    """

    group_s: float
    epoch_s: float | None = None

    def of_epoch(self, longest_s: float, first: bool) -> float:
        """The limit of a trial's next epoch, where the longest of the study so far took `longest_s` seconds."""
        if self.epoch_s is not None:
            return self.epoch_s
        return max(FIRST_S if first else EPOCH_S, SLOWER * longest_s)
