"""The private interfaces of Optuna that the search uses, written for Optuna 5.0.

Optuna recomputes for every parameter of every trial what changes once per trial, so a draw takes longer with each
finished trial. It has no public way to avoid that, nor to restrict what a sampler learns from. Three things here do:

- `tpe_sampler`: TPE with the same draws in less time;
- `FilteredStudy`: a study that shows its sampler part of its trials, and looks for enqueued ones only if any can exist;
- `durable_operations`: the kinds of journal entries that have to survive a power cut.

On another version of Optuna a warning is logged once, and the public way is used: Optuna's own TPE, samplers that see
all trials, and Optuna's own journal file, which is synced after every entry. That is slower and finds no less.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Container
from functools import cache
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

WRITTEN_FOR = "5.0"
_USED = {
    "optuna.study.Study": ("_get_trials", "_pop_waiting_trial_id"),
    "optuna.samplers.TPESampler": (
        "_sample", "_build_parzen_estimator", "_compute_acquisition_func", "_compare", "_get_internal_repr",
        "_get_params",
    ),
    "optuna.samplers._tpe.sampler": ("_split_trials", "default_gamma", "default_gamma_multiobjective"),
    "optuna.storages.journal._storage": ("JournalOperation",),
}  # fmt: skip
"""What this module uses, by the class or module that has it."""

logger = logging.getLogger(__name__)


@cache
def supported() -> bool:
    """Whether this Optuna has the interfaces that this module was written for. Logs a warning if not, once."""
    reason = _difference()
    if reason:
        logger.warning(
            "Optuna %s lacks private interfaces of Optuna %s (%s): each draw takes longer the more trials are finished",
            optuna.__version__, WRITTEN_FOR, reason,
        )  # fmt: skip
    return not reason


def _difference() -> str:
    """How this Optuna differs from the one that this module was written for; empty if it does not."""
    if not optuna.__version__.startswith(f"{WRITTEN_FOR}."):
        return "another version"
    from pkgutil import resolve_name

    for owner, names in _USED.items():
        try:
            found = resolve_name(owner)
        except (ImportError, AttributeError):
            return f"no {owner}"
        for name in names:
            if not hasattr(found, name):
                return f"no {owner}.{name}"
    return ""


# ---- TPE -------------------------------------------------------------------------------------------------------------


def tpe_sampler(**options: Any) -> optuna.samplers.TPESampler:
    """`optuna.samplers.TPESampler` of these options, with the same draws; a faster one on a supported version."""
    return _CachedTPESampler(**options) if supported() else optuna.samplers.TPESampler(**options)


class _CachedTPESampler(optuna.samplers.TPESampler):
    """TPE that keeps between two draws what does not change between them.

    Optuna splits the trials into good ones and others for every parameter; here once per trial, since no trial ends
    between two parameters of one trial. It converts the values of all trials to numbers for every draw; here those of
    a finished trial are kept.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._split: tuple[int, tuple[list[FrozenTrial], list[FrozenTrial]]] | None = None
        self._numbers: dict[tuple[str, BaseDistribution], dict[int, float | None]] = {}

    def _sample(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        if self._split is None or self._split[0] != trial.number:
            self._split = trial.number, self._split_into_good_and_others(study, trial)
        below, above = self._split[1]
        good = self._build_parzen_estimator(study, search_space, below, handle_below=True)
        others = self._build_parzen_estimator(study, search_space, above, handle_below=False)
        samples = good.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(samples, self._compute_acquisition_func(samples, good, others))
        return {name: domain.to_external_repr(best[name]) for name, domain in search_space.items()}

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: dict[str, BaseDistribution], study: optuna.Study
    ) -> dict[str, np.ndarray]:
        if len(search_space) != 1:  # a multivariate draw leaves out trials that lack one of the parameters
            numbers: dict[str, np.ndarray] = super()._get_internal_repr(trials, search_space, study)
            return numbers
        ((name, domain),) = search_space.items()
        known = self._numbers.setdefault((name, domain), {})
        values = []
        for trial in trials:
            number = trial.number
            if number in known:
                value = known[number]
            else:
                params = self._get_params(trial, study)
                value = domain.to_internal_repr(params[name]) if name in params else None
                if trial.state.is_finished():
                    known[number] = value
            if value is not None:
                values.append(value)
        return {name: np.asarray(values)}

    def _split_into_good_and_others(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        from optuna.samplers._tpe.sampler import _split_trials, default_gamma, default_gamma_multiobjective

        states = [TrialState.COMPLETE, TrialState.PRUNED, *([TrialState.RUNNING] if self._constant_liar else [])]
        trials = [t for t in study._get_trials(deepcopy=False, states=states) if t.number != trial.number]
        finished = sum(t.state != TrialState.RUNNING for t in trials)
        gamma = default_gamma if len(study.directions) == 1 else default_gamma_multiobjective
        return _split_trials(study, trials, gamma(finished))


# ---- studies ---------------------------------------------------------------------------------------------------------


class FilteredStudy(optuna.Study):
    """A study that lets a subclass choose the trials that its sampler sees. On other versions it shows all."""

    def trials_for_sampler(self, states: tuple[TrialState, ...]) -> list[FrozenTrial] | None:
        """Trials in one of `states`, in order of their numbers; None for all that the study has."""
        return None

    def may_have_enqueued(self) -> bool:
        """Whether a trial may be enqueued; if not, none is looked for."""
        return True

    def on_none_enqueued(self) -> None:
        """No trial was found to be enqueued."""

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """The method by which samplers read the finished trials."""
        wanted = tuple(state for state in TrialState if states is None or state in states)
        trials = self.trials_for_sampler(wanted) if supported() else None
        if trials is None:
            return super()._get_trials(deepcopy, states, use_cache)
        return copy.deepcopy(trials) if deepcopy else trials

    def _pop_waiting_trial_id(self) -> int | None:
        """The method by which `ask` takes an enqueued trial; Optuna's goes through all trials."""
        if supported() and not self.may_have_enqueued():
            return None
        trial_id = super()._pop_waiting_trial_id()
        if trial_id is None:
            self.on_none_enqueued()
        return trial_id


# ---- the journal -----------------------------------------------------------------------------------------------------


def durable_operations() -> frozenset[int]:
    """Codes of the journal entries that create a study, describe it, or hold a trial's settings or outcome."""
    from optuna.storages.journal._storage import JournalOperation

    return frozenset(
        {JournalOperation.CREATE_STUDY, JournalOperation.SET_STUDY_USER_ATTR, JournalOperation.SET_TRIAL_USER_ATTR}
    )
