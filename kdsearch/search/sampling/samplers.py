"""The samplers of Optuna by name, and the study they see: a bounded part of what has been run."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Container
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers._tpe.sampler import _split_trials as split_trials
from optuna.samplers._tpe.sampler import default_gamma, default_gamma_multiobjective
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kdsearch.config.sampler import AnySampler, GPConfig, NSGA2Config, QMCConfig, RandomConfig, TPEConfig
from kdsearch.config.space.ranges import Choice, Int, IntLog, Log, Range
from kdsearch.errors import UserError
from kdsearch.search.pareto import ranks

SHARE_OF_BEST = 0.25
"""Share of a bounded history that is kept for being good, however old."""


def make_sampler(config: AnySampler, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler that `config` names. Raises `UserError` where what it needs is not installed."""
    options = config.model_dump(exclude={"name", "history"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match config:
            case TPEConfig():
                return _TPESampler(seed=seed, **options)
            case NSGA2Config():
                return optuna.samplers.NSGAIISampler(seed=seed, **options)
            case GPConfig():
                _require("gp", "scipy", "torch")
                return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False, **options)
            case RandomConfig():
                return optuna.samplers.RandomSampler(seed=seed)
            case QMCConfig():
                _require("qmc", "scipy")
                return optuna.samplers.QMCSampler(
                    seed=seed, warn_independent_sampling=False, warn_asynchronous_seeding=False, **options
                )


def _require(sampler: str, *packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"search.sampler {sampler} needs {' and '.join(missing)}: pip install {' '.join(missing)}, "
            "or take tpe, nsga2 or random."
        )


class _TPESampler(optuna.samplers.TPESampler):
    """Optuna's, with the same draws for less: what does not change between two of them is not computed again.

    Optuna sorts the good trials from the others anew for every parameter it draws; here once a trial, since nothing is
    told between two parameters of one trial. And it converts the values of all trials to numbers for every draw; here
    those of a finished trial are kept.
    """

    _split: tuple[int, tuple[list[FrozenTrial], list[FrozenTrial]]] | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._numbers: dict[tuple[str, BaseDistribution], dict[int, float | None]] = {}

    def _sample(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        if self._split is None or self._split[0] != trial._trial_id:
            self._split = trial._trial_id, self._split_trials(study, trial)
        below, above = self._split[1]
        good = self._build_parzen_estimator(study, search_space, below, handle_below=True)
        others = self._build_parzen_estimator(study, search_space, above, handle_below=False)
        samples = good.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(samples, self._compute_acquisition_func(samples, good, others))
        return {name: domain.to_external_repr(best[name]) for name, domain in search_space.items()}

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: dict[str, BaseDistribution], study: optuna.Study
    ) -> dict[str, np.ndarray]:
        if len(search_space) != 1:  # a multivariate draw, in which trials that lack one of the parameters are left out
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

    def _split_trials(self, study: optuna.Study, trial: FrozenTrial) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        states = [TrialState.COMPLETE, TrialState.PRUNED, *([TrialState.RUNNING] if self._constant_liar else [])]
        trials = [t for t in study._get_trials(deepcopy=False, states=states) if t.number != trial.number]
        finished = sum(t.state != TrialState.RUNNING for t in trials)
        gamma = default_gamma if len(study.directions) == 1 else default_gamma_multiobjective
        return split_trials(study, trials, gamma(finished))


class SearchStudy(optuna.Study):
    """An Optuna study of one driver, whose sampler learns from at most `history` finished trials.

    Optuna's samplers go through all trials for every parameter they draw, so a draw takes longer with each trial. Here
    they see a quarter of the best and otherwise the latest, and what is running: TPE models at most the 25 best trials
    as good ones, and gives the oldest of the others the least weight. Without `history` they see all.
    """

    def __init__(
        self, name: str, storage: optuna.storages.BaseStorage, sampler: optuna.samplers.BaseSampler, history: int | None
    ) -> None:
        super().__init__(study_name=name, storage=storage, sampler=sampler)
        self._history = history
        self._may_wait = True
        self._seen: list[FrozenTrial] = []
        self._running: list[FrozenTrial] = []
        self._visible: dict[tuple[TrialState, ...], list[FrozenTrial]] = {}
        self._unfinished: set[int] = set()
        for trial in storage.get_all_trials(self._study_id, deepcopy=False):
            if trial.state.is_finished():
                self._see(trial)
            elif trial.state == TrialState.RUNNING:
                self._unfinished.add(trial._trial_id)

    def ask(self, fixed_distributions: dict[str, BaseDistribution] | None = None) -> optuna.Trial:
        self._refresh()
        trial = super().ask(fixed_distributions)
        self._unfinished.add(trial._trial_id)
        return trial

    def enqueue_trial(self, *arguments: Any, **options: Any) -> None:
        super().enqueue_trial(*arguments, **options)
        self._may_wait = True

    def add_trial(self, trial: FrozenTrial) -> None:
        super().add_trial(trial)
        # Numbered by the storage; nothing else is created between.
        added = self._storage.get_all_trials(self._study_id, deepcopy=False)[-1]
        self._may_wait |= added.state == TrialState.WAITING
        if added.state.is_finished():
            self._see(added)

    def _refresh(self) -> None:
        """Take over what was told since the last draw: one look at each trial that was running then."""
        trials = [self._storage.get_trial(trial_id) for trial_id in sorted(self._unfinished)]
        self._running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        self._visible.clear()
        self._unfinished = {trial._trial_id for trial in self._running}
        for trial in trials:
            if trial.state.is_finished():
                self._see(trial)

    def _see(self, trial: FrozenTrial) -> None:
        if self._history is None or trial.state == TrialState.FAIL:
            return
        self._seen.append(trial)
        self._visible.clear()
        if len(self._seen) > self._history:
            # Down to four fifths, so that the best are not sorted out again with every trial.
            self._seen = _best_and_latest(self._seen, self._history * 4 // 5, self.directions)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """What samplers call to learn from the past; in order of their numbers, as they expect."""
        if self._history is None:
            return super()._get_trials(deepcopy, states, use_cache)
        wanted = tuple(state for state in TrialState if states is None or state in states)
        if wanted not in self._visible:
            trials = [trial for trial in [*self._seen, *self._running] if trial.state in wanted]
            self._visible[wanted] = sorted(trials, key=lambda trial: trial.number)
        return copy.deepcopy(self._visible[wanted]) if deepcopy else self._visible[wanted].copy()

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._study_id, deepcopy=deepcopy, states=states)

    def _pop_waiting_trial_id(self) -> int | None:
        # Optuna looks through all trials for one that waits; most of the time none can.
        if not self._may_wait:
            return None
        waiting = super()._pop_waiting_trial_id()
        self._may_wait = waiting is not None
        return waiting


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


def distribution(domain: Range) -> BaseDistribution:
    """A range as Optuna knows it."""
    match domain:
        case Choice():
            return CategoricalDistribution(domain.categories)
        case Int() | IntLog():
            return IntDistribution(domain.low, domain.high, log=isinstance(domain, IntLog))
        case _:
            return FloatDistribution(domain.low, domain.high, log=isinstance(domain, Log))


def suggest(trial: optuna.Trial, name: str, domain: Range) -> Any:
    """A value of a parameter, from the sampler."""
    match domain:
        case Choice():
            return trial.suggest_categorical(name, domain.categories)
        case Int() | IntLog():
            return trial.suggest_int(name, domain.low, domain.high, log=isinstance(domain, IntLog))
        case _:
            return trial.suggest_float(name, domain.low, domain.high, log=isinstance(domain, Log))
