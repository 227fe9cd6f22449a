"""What a study trains next: the teacher, then the search, then repeats and controls of the frontier.

No Ray here: the controller hands out records and is told how they went; who trains them is somebody else's matter.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np

from kdsearch.config.search import main_cost
from kdsearch.config.space.search_space import SearchSpace, trial_key
from kdsearch.search.confirm import Confirmation, confirmations, repeats
from kdsearch.search.constraints import check_reported
from kdsearch.search.pareto import costs, hypervolume
from kdsearch.search.stopping.rungs import Rungs
from kdsearch.search.storage.study_storage import Outcome, StudyStorage, TrialRecord


class Callback(Protocol):
    """Whoever follows a study: the live view, MLflow, the tables in the run folder."""

    def started(self, record: TrialRecord) -> None: ...
    def epoch(self, record: TrialRecord) -> None: ...
    def on_trial_restart(self, record: TrialRecord, reason: str) -> None: ...
    def on_trial_end(self, record: TrialRecord) -> None: ...
    def frontier(self, members: list[TrialRecord], volume: float) -> None: ...


class StudyController:
    """Decides what is trained, judges what comes back, and tells the record and all listeners.

    `teacher` is the training of the teacher, or None when it exists already (or nothing is distilled). `reference` is
    the corner, in costs, that bounds the hypervolume.
    """

    def __init__(
        self,
        space: SearchSpace,
        record: StudyStorage,
        rungs: Rungs,
        reference: dict[str, float],
        teacher: TrialRecord | None,
        confirm: bool,
        listeners: list[Callback],
    ) -> None:
        self.space, self.record, self.rungs = space, record, rungs
        self.reference = np.array([-0.0 if name == "miou" else reference[name] for name in space.search.objectives])
        self.teacher = teacher
        self.listeners = listeners
        self.in_flight: dict[str, TrialRecord] = {}
        self.volume = 0.0
        self._confirm = confirm and space.confirm.seeds > 0
        self._left_over = list(record.running())
        self._exhausted = False
        for complete in record.complete("search"):
            # A driver may have died between telling the record and the rungs; results may have been taken over.
            if complete.feasible and complete.id not in rungs.ends:
                rungs.complete(complete.id, complete.values())
        self._announce_frontier()

    # ---- handing out ---------------------------------------------------------------------------------------------

    def next_trial(self) -> TrialRecord | Literal["wait", "done"]:
        """The next record to train; `"wait"` while that depends on what is out; `"done"` when nothing will follow."""
        record = self._next()
        if isinstance(record, TrialRecord):
            self.in_flight[record.id] = record
            self._tell("on_trial_start", record)
        return record

    def _next(self) -> TrialRecord | Literal["wait", "done"]:
        if self.teacher is not None:
            if self.teacher.state in ("FAIL", "INFEASIBLE"):
                return "done"
            return "wait" if self.teacher.id in self.in_flight else self.teacher
        if self._left_over:
            return self._left_over.pop(0)
        if not self._exhausted and self.record.searched() < self.space.search.trials:
            record = self.record.ask()
            if record is not None:
                return record
            self._exhausted = True
        if self._confirm:
            if any(record.stage == "search" for record in self.in_flight.values()):
                return "wait"
            return self._unconfirmed() or "done"
        return "done"

    def _unconfirmed(self) -> TrialRecord | None:
        """The next repeat or control of the frontier that is on record nowhere, put on record."""
        known = {trial_key(r.config) for r in self.record.all() if r.stage in ("confirm", "control")}
        for member in self.members():
            for repeat, control in repeats(member.config, self.space.confirm):
                if trial_key(repeat) not in known:
                    return self.record.add("confirm", repeat, {"of": member.id})
                if trial_key(control) not in known:
                    return self.record.add("control", control, {"of": member.id})
        return None

    # ---- what comes back -----------------------------------------------------------------------------------------

    def on_report(self, trial_id: str, epoch: int, metrics: dict[str, float]) -> bool:
        """An epoch is over. Whether the trial goes on: not at its end, and not when its rung stops it."""
        record = self.in_flight[trial_id]
        record.epoch, record.metrics = epoch, metrics
        record.curve[epoch] = record.miou
        record.seconds += metrics.get("time/train_s", 0.0) + metrics.get("time/val_s", 0.0)
        self._tell("on_trial_result", record)
        if record.stage == "search":
            check_reported(self.space, metrics)
        if epoch >= record.config.train.epochs:
            return False
        return record.stage != "search" or self.rungs.keep(record.id, epoch, record.values())

    def on_trial_restart(self, trial_id: str, reason: str) -> None:
        """Its workers died; it goes on from its last epoch."""
        self._tell_listeners("on_trial_restart", self.in_flight[trial_id], reason)

    def on_trial_end(self, trial_id: str, failure: str | None, infeasible: bool = False) -> None:
        """A trial is over: trained to its end, stopped at a rung, or failed for the reason given.

        `infeasible` says that the failure lies in its configuration, as far as these machines go.
        """
        record = self.in_flight.pop(trial_id)
        state: Outcome
        if failure is not None:
            state = "INFEASIBLE" if infeasible else "FAIL"
        else:
            state = "COMPLETE" if record.epoch >= record.config.train.epochs else "PRUNED"
        if record is self.teacher:
            record.state, record.reason = state, failure or ""
            if state == "COMPLETE":
                self.teacher = None
        else:
            self.record.tell(record, state, failure or "")
        if record.stage == "search" and state == "COMPLETE":
            if record.feasible:
                self.rungs.complete(record.id, record.values())
            self._announce_frontier()
        self._tell("on_trial_end", record)

    # ---- the frontier --------------------------------------------------------------------------------------------

    def members(self) -> list[TrialRecord]:
        """Complete trials of the search that keep all constraints and that no other dominates, cheapest first."""
        cost = main_cost(self.space.search.objectives)
        return sorted(self.record.frontier(), key=lambda r: r.cost[cost])

    def confirmed(self) -> dict[str, Confirmation]:
        """What repeats and controls say so far of each frontier member, by its id."""
        return confirmations(self.members(), self.record.all(), self.space.confirm, self.space.search.objectives)

    def _announce_frontier(self) -> None:
        members = self.members()
        costs_nm = costs([r.values() for r in members], self.space.search.objectives)
        self.volume = hypervolume(costs_nm, self.reference)
        self._tell_listeners("on_frontier", members, self.volume)

    def _tell(self, event: Literal["on_trial_start", "epoch", "ended"], record: TrialRecord) -> None:
        self._tell_listeners(event, record)

    def _tell_listeners(self, event: str, *arguments: Any) -> None:
        for listener in self.listeners:
            getattr(listener, event)(*arguments)
