"""How long a study waits for its workers before it takes them for hung."""

from __future__ import annotations

from dataclasses import dataclass

SLOWER = 10.0
"""How many times as long as the longest epoch so far an epoch may take."""
EPOCH_S = 600.0
"""What an epoch may always take, in seconds."""
FIRST_S = 7200.0
"""What setting a trial up, and its first epoch, may always take: no trial before says how long they last, since the
student may be larger than any before, and the first trial may write the teacher's maps."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds that a worker group may take: `group_s` to come up, `epoch_s` for an epoch and for setting a trial up.

    Without `epoch_s` the limit follows from the epochs that the study has seen, see `of_epoch`.
    """

    group_s: float
    epoch_s: float | None = None

    def of_epoch(self, longest_s: float, first: bool) -> float:
        """The limit of a trial's next epoch, when the longest of the study so far took `longest_s` seconds."""
        if self.epoch_s is not None:
            return self.epoch_s
        return max(FIRST_S if first else EPOCH_S, SLOWER * longest_s)
