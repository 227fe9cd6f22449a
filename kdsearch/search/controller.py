"""The controller of a study: the next trial, the verdict on each report, and the frontier.

Stages come in order: the teacher, the search, then repeats and controls of the frontier. No Ray here: the engine asks
for trials and reports their results, and the simulator does the same under a fake clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from kdsearch.config.metrics import TOTAL_SECONDS, main_cost
from kdsearch.config.space.flatten import trial_key
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.io.json_text import finite
from kdsearch.search.callbacks import StudyCallback
from kdsearch.search.confirm import Confirmation, confirmations, repeats
from kdsearch.search.constraints import check_reported
from kdsearch.search.pareto import costs, hypervolume
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import Outcome, TrialRecord


class StudyController:
    """Chooses the next trial, judges each report, and keeps storage, stop rule and callbacks in step.

    `teacher` is the training of the teacher, or None where it is trained already or nothing is distilled. `reference`
    is the corner, in costs, that bounds the hypervolume. `may_start` is called before each new trial: once it returns
    False no further trial starts, and those in flight are the last.
    """

    def __init__(
        self,
        space: SearchSpace,
        storage: StudyStorage,
        rungs: RungState,
        reference: Mapping[str, float],
        teacher: TrialRecord | None,
        confirm: bool,
        callback: StudyCallback,
        may_start: Callable[[], bool] = lambda: True,
    ) -> None:
        self.space, self.storage, self.rungs = space, storage, rungs
        self.reference = np.array([-0.0 if name == "miou" else reference[name] for name in space.search.objectives])
        self.teacher = teacher
        self.callback = callback
        self.in_flight: dict[str, TrialRecord] = {}
        self.hypervolume = 0.0
        self._may_start = may_start
        self._confirm = confirm and space.confirm.seeds > 0
        self._unfinished = list(storage.running())
        self._postponed: list[TrialRecord] = []
        self._started: set[str] = set()
        self._exhausted = False
        for complete in storage.complete("search"):
            # A driver may have died between writing to the storage and to the stop rule; warm start adds results.
            if complete.feasible and complete.id not in rungs.ends:
                rungs.complete(complete.id, complete.values())
        self._update_frontier()

    # ---- the next trial ------------------------------------------------------------------------------------------

    def next_trial(self) -> TrialRecord | Literal["wait", "done"]:
        """The next trial; `"wait"` while it depends on trials in flight; `"done"` when none will follow."""
        trial = self._next_trial()
        if isinstance(trial, TrialRecord):
            self.in_flight[trial.id] = trial
            if trial.id not in self._started:
                self._started.add(trial.id)
                self.callback.on_trial_start(trial)
        return trial

    def _next_trial(self) -> TrialRecord | Literal["wait", "done"]:
        if not self._may_start():
            return "done"
        if self.teacher is not None:
            if self.teacher.state in ("FAIL", "INFEASIBLE"):
                return "done"
            return "wait" if self.teacher.id in self.in_flight else self.teacher
        if self._unfinished:
            return self._unfinished.pop(0)
        if not self._exhausted and self.storage.searched() < self.space.search.trials:
            trial = self.storage.ask()
            if trial is not None:
                return trial
            self._exhausted = True
        for postponed in self._postponed:
            if postponed.stage == "search":
                self._postponed.remove(postponed)
                return postponed
        if self._confirm:
            if any(trial.stage == "search" for trial in self.in_flight.values()):
                return "wait"
            if (trial := self._unconfirmed()) is not None:
                return trial
        if self._postponed:
            return self._postponed.pop(0)
        return "wait" if self.in_flight else "done"  # one in flight may come back

    def _unconfirmed(self) -> TrialRecord | None:
        """The next repeat or control of the frontier that the storage lacks; it is added there."""
        known = {trial_key(t.config) for t in self.storage.trials if t.stage in ("confirm", "control")}
        for member in self.members():
            for repeat, control in repeats(member.config, self.space.confirm):
                if trial_key(repeat) not in known:
                    return self.storage.add("confirm", repeat, {"of": member.id})
                if trial_key(control) not in known:
                    return self.storage.add("control", control, {"of": member.id})
        return None

    # ---- reports and ends ----------------------------------------------------------------------------------------

    def on_report(self, trial_id: str, epoch: int, metrics: dict[str, float]) -> bool:
        """Record the result of an epoch. False ends the trial: at its last epoch, or by the stop rule."""
        trial = self.in_flight[trial_id]
        if TOTAL_SECONDS in metrics:
            trial.seconds = metrics[TOTAL_SECONDS]
        elif epoch > trial.epoch:  # workers that go on from a checkpoint report its epoch again
            trial.seconds += metrics.get("time/train_s", 0.0) + metrics.get("time/val_s", 0.0)
        trial.epoch, trial.metrics = epoch, finite(metrics)
        if trial.without_value(["miou"]):
            return False  # the trial fails at its end
        trial.curve[epoch] = trial.miou
        self.callback.on_trial_result(trial)
        if trial.stage == "search":
            check_reported(self.space, metrics)
        if epoch >= trial.config.train.epochs:
            return False
        return trial.stage != "search" or self.rungs.keep(trial.id, epoch, trial.values())

    def on_trial_restart(self, trial_id: str, reason: str, later: bool = False) -> None:
        """Its workers were lost: `next_trial` hands it out again, to continue from its last checkpoint.

        With `later`, once nothing else of its stage is left to train.
        """
        trial = self._take_back(trial_id, later)
        self.callback.on_trial_restart(trial, reason)

    def on_trial_wait(self, trial_id: str) -> None:
        """It found no place: `next_trial` hands it out again. Nothing has gone wrong, however often that happens."""
        self._take_back(trial_id, later=False)

    def taken_back(self) -> list[TrialRecord]:
        """Trials that have lost their workers or found no place, and are next."""
        return [trial for trial in self._unfinished if trial.id in self._started]

    def _take_back(self, trial_id: str, later: bool) -> TrialRecord:
        trial = self.in_flight.pop(trial_id)
        if trial is self.teacher:
            return trial  # alone until it is trained
        if later:
            self._postponed.append(trial)
        else:
            self._unfinished.insert(0, trial)
        return trial

    def on_trial_end(self, trial_id: str, failure: str | None, infeasible: bool = False) -> None:
        """End a trial: trained to its last epoch, stopped at a rung, or failed for the reason given.

        A trial whose mIoU, or another objective, is not a number has failed. `infeasible` means that the configuration
        does not fit on these devices.
        """
        trial = self.in_flight.pop(trial_id)
        state: Outcome
        failure = failure or trial.without_value(["miou", *self.space.search.objectives]) or None
        if failure is not None:
            state = "INFEASIBLE" if infeasible else "FAIL"
        else:
            state = "COMPLETE" if trial.epoch >= trial.config.train.epochs else "PRUNED"
        if trial is self.teacher:
            trial.state, trial.reason = state, failure or ""
            if state == "COMPLETE":
                self.teacher = None
        else:
            self.storage.tell(trial, state, failure or "")
        if trial.stage == "search" and state == "COMPLETE":
            if trial.feasible:
                self.rungs.complete(trial.id, trial.values())
            self._update_frontier()
        self.callback.on_trial_end(trial)

    # ---- the frontier --------------------------------------------------------------------------------------------

    def members(self) -> list[TrialRecord]:
        """Complete trials of the search that keep all constraints and that no other dominates, cheapest first."""
        cost = main_cost(self.space.search.objectives)
        return sorted(self.storage.frontier(), key=lambda trial: trial.cost[cost])

    def confirmed(self) -> dict[str, Confirmation]:
        """The results of repeats and controls so far, per frontier member by its id."""
        return confirmations(self.members(), self.storage.trials, self.space.confirm, self.space.search.objectives)

    def _update_frontier(self) -> None:
        members = self.members()
        costs_nm = costs([trial.values() for trial in members], self.space.search.objectives)
        self.hypervolume = hypervolume(costs_nm, self.reference)
        self.callback.on_frontier(members, self.hypervolume)
