"""The Optuna study that draws the trials of one driver; its sampler learns from a bounded part of the history."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kdsearch.search.pareto import ranks
from kdsearch.search.sampling.optuna_private import FilteredStudy

SHARE_OF_BEST = 0.25
"""Share of a bounded history that is kept for its results, whatever its age."""


class SearchStudy(FilteredStudy):
    """An Optuna study whose sampler learns from at most `history` finished trials; from all if it is None.

    Samplers of Optuna go through all trials for every parameter they draw, so a draw takes longer with each trial. A
    bounded history keeps a quarter for the best trials and otherwise the latest, besides the running ones: TPE models
    at most the 25 best trials as good ones, and gives the oldest of the others the least weight.
    """

    def __init__(
        self, name: str, storage: optuna.storages.BaseStorage, sampler: optuna.samplers.BaseSampler, history: int | None
    ) -> None:
        super().__init__(study_name=name, storage=storage, sampler=sampler)
        self._history = history
        self._may_have_enqueued = True
        self._study_storage = storage
        self._id = storage.get_study_id_from_name(name)
        self._seen: list[FrozenTrial] = []
        self._running: list[FrozenTrial] = []
        self._visible: dict[tuple[TrialState, ...], list[FrozenTrial]] = {}
        self._unfinished: set[int] = set()
        for trial in self.get_trials(deepcopy=False):
            if trial.state.is_finished():
                self._see(trial)
            elif trial.state == TrialState.RUNNING:
                self._unfinished.add(trial.number)

    # ---- Optuna's study ------------------------------------------------------------------------------------------

    def ask(self, fixed_distributions: dict[str, BaseDistribution] | None = None) -> optuna.Trial:
        self._refresh()
        trial = super().ask(fixed_distributions)
        self._unfinished.add(trial.number)
        return trial

    def enqueue_trial(self, *arguments: Any, **options: Any) -> None:
        super().enqueue_trial(*arguments, **options)
        self._may_have_enqueued = True

    def add_trial(self, trial: FrozenTrial) -> None:
        super().add_trial(trial)
        # The storage numbers it; nothing else is created in between.
        added = self.get_trials(deepcopy=False)[-1]
        self._may_have_enqueued |= added.state == TrialState.WAITING
        if added.state == TrialState.RUNNING:
            self._unfinished.add(added.number)
        if added.state.is_finished():
            self._see(added)

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """All trials, not only those that the sampler sees."""
        return self._study_storage.get_all_trials(self._id, deepcopy=deepcopy, states=states)

    # ---- what the sampler sees -----------------------------------------------------------------------------------

    def trials_for_sampler(self, states: tuple[TrialState, ...]) -> list[FrozenTrial] | None:
        if self._history is None:
            return None
        if states not in self._visible:
            trials = [trial for trial in [*self._seen, *self._running] if trial.state in states]
            self._visible[states] = sorted(trials, key=lambda trial: trial.number)
        return self._visible[states].copy()

    def may_have_enqueued(self) -> bool:
        return self._may_have_enqueued

    def on_none_enqueued(self) -> None:
        self._may_have_enqueued = False

    def _refresh(self) -> None:
        """Update the history with the trials that have ended since the last draw."""
        read, number_to_id = self._study_storage.get_trial, self._study_storage.get_trial_id_from_study_id_trial_number
        trials = [read(number_to_id(self._id, number)) for number in sorted(self._unfinished)]
        self._running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        self._visible.clear()
        self._unfinished = {trial.number for trial in self._running}
        for trial in trials:
            if trial.state.is_finished():
                self._see(trial)

    def _see(self, trial: FrozenTrial) -> None:
        if self._history is None or trial.state == TrialState.FAIL:
            return
        self._seen.append(trial)
        self._visible.clear()
        if len(self._seen) > self._history:
            # Down to four fifths, so that not every further trial sorts the history again.
            self._seen = _best_and_latest(self._seen, self._history * 4 // 5, self.directions)


def _best_and_latest(trials: list[FrozenTrial], n: int, directions: list[StudyDirection]) -> list[FrozenTrial]:
    """`n` of the trials: a share of the best that are complete and keep all constraints, then the latest."""
    good = [
        trial for trial in trials
        if trial.state == TrialState.COMPLETE and all(value <= 0 for value in trial.constraints.values())
    ]  # fmt: skip
    best: set[int] = set()
    if good:
        signs = np.array([-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions])
        rank_n = ranks(np.array([trial.values for trial in good]) * signs)
        order = np.argsort(rank_n, kind="stable")[: int(n * SHARE_OF_BEST)]
        best = {good[i].number for i in order}
    others = sorted((t for t in trials if t.number not in best), key=lambda trial: trial.number)
    return [t for t in trials if t.number in best] + others[len(others) - (n - len(best)) :]
