"""All trials of a study in memory: by id, by configuration, and the frontier of the complete ones."""

from __future__ import annotations

from kdsearch.config.search import SearchConfig
from kdsearch.config.space.flatten import trial_key
from kdsearch.config.trial import TrialConfig
from kdsearch.search import constraints
from kdsearch.search.pareto import costs, non_dominated
from kdsearch.search.trial_record import TrialRecord


class TrialIndex:
    """The records of a study, in the order in which they were added.

    `searched` counts trials of the search that took, or take, a slot: infeasible, duplicate and imported ones do not.
    `frontier` holds the complete trials of the search that keep all constraints and that no other dominates, in order
    of their ids. `unrunnable` are the ids of trials that could not be built, or did not fit in device memory.
    """

    def __init__(self, search: SearchConfig) -> None:
        self.searched = 0
        self.frontier: list[TrialRecord] = []
        self.unrunnable: set[str] = set()
        self._bounds, self._objectives = search.constraints, search.objectives
        self._trials: dict[str, TrialRecord] = {}
        self._by_key: dict[str, str] = {}
        self._next_number = 0

    @property
    def trials(self) -> list[TrialRecord]:
        return list(self._trials.values())

    def __getitem__(self, trial_id: str) -> TrialRecord:
        return self._trials[trial_id]

    def find(self, config: TrialConfig) -> TrialRecord | None:
        """The trial of the search with an equal configuration, if that must not be drawn again."""
        trial_id = self._by_key.get(trial_key(config))
        return None if trial_id is None else self._trials[trial_id]

    def next_id(self) -> str:
        """The id of the next trial of the search."""
        return f"t{self._next_number:04d}"

    def exceeds_bounds(self, record: TrialRecord) -> bool:
        """Whether the cost of a trial breaks a constraint."""
        return bool(constraints.broken(constraints.static(self._bounds), record.cost))

    def add(self, record: TrialRecord, unrunnable: bool = False) -> None:
        """Add a trial, in whatever state; one that was asked again takes the place of its failure."""
        failed = self._trials.get(record.id)
        self._trials[record.id] = record
        if unrunnable:
            self.unrunnable.add(record.id)
        if record.stage == "search":
            self._next_number = max(self._next_number, int(record.id[1:]) + 1)
            self.searched += failed is None and record.state != "INFEASIBLE" and not record.origin
            # A trial that only an earlier, tighter constraint made infeasible may be drawn again.
            if record.state != "INFEASIBLE" or record.id in self.unrunnable or self.exceeds_bounds(record):
                self._by_key[trial_key(record.config)] = record.id
        self._update_frontier(record)

    def on_trial_end(self, record: TrialRecord) -> None:
        """A trial that was running has ended. Infeasible now means that it did not fit in device memory."""
        if record.state == "INFEASIBLE":
            self.unrunnable.add(record.id)
            self.searched -= record.stage == "search"
        self._update_frontier(record)

    def _update_frontier(self, record: TrialRecord) -> None:
        if record.stage != "search" or record.state != "COMPLETE":
            return
        record.broken = record.reason = constraints.broken(self._bounds, record.known())
        if record.feasible:
            # In order of ids, so that of equal points the first that was asked stays, whichever ended first.
            candidates = sorted([*self.frontier, record], key=lambda r: int(r.id[1:]))
            mask = non_dominated(costs([r.values() for r in candidates], self._objectives))
            self.frontier = [r for r, kept in zip(candidates, mask, strict=True) if kept]
