"""What the sampler is told of trials: their values, and how they stand to the bounds."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from kdsearch.config.metrics import COSTS
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.search import constraints
from kdsearch.search.evolution.space_mapping import SpaceMapping
from kdsearch.search.sampling.samplers import SearchStudy, distribution
from kdsearch.search.trial_record import TrialRecord


class SamplerAdapter:
    """Tells the study `search` of `space` about records."""

    def __init__(self, search: SearchStudy, space: SearchSpace) -> None:
        self._search = search
        self._objectives = tuple(space.search.objectives)
        self._bounds = space.search.constraints
        self._domains = space.parameters()

    def complete(self, trial: optuna.Trial, record: TrialRecord) -> None:
        """A trial that the sampler asked for has come to what `record` says, its own or that of an equal one."""
        for name, violation in self._violations(record).items():
            if name not in COSTS:  # the others are known since it was asked for
                trial.set_constraint(name, violation)
        self._search.tell(trial, self._values(record))

    def add(self, fitted: SpaceMapping, record: TrialRecord, attributes: dict[str, Any], unfit: bool = False) -> None:
        """A trial that the sampler did not ask for is over. An `unfit` one could not be built, or did not fit."""
        complete = record.state == "COMPLETE"
        static = constraints.violations(constraints.static(self._bounds), record.cost)
        self._search.add_trial(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.PRUNED,
                values=self._values(record) if complete else None,
                params=dict(fitted.sample.params),
                distributions={name: distribution(self._domains[name]) for name in fitted.sample.params},
                user_attrs=attributes,
                constraints=(self._violations(record) if complete else static) | ({"runs": 1.0} if unfit else {}),
            )
        )

    def _violations(self, record: TrialRecord) -> dict[str, float]:
        # What was not reported counts as one beyond its bound, whatever the unit: it is not known to be kept.
        return dict.fromkeys(self._bounds, 1.0) | constraints.violations(self._bounds, record.known())

    def _values(self, record: TrialRecord) -> list[float]:
        known = record.values()
        return [known[name] for name in self._objectives]
