"""Reports of trials to the sampler: their values, and how far they exceed the bounds of the search."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from kdsearch.config.metrics import COSTS
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.search import constraints
from kdsearch.search.evolution.space_mapping import SpaceMapping
from kdsearch.search.sampling.distributions import distribution
from kdsearch.search.sampling.search_study import SearchStudy
from kdsearch.search.trial_record import TrialRecord


class SamplerAdapter:
    """Turns records into trials of the Optuna study `search` of `space`."""

    def __init__(self, search: SearchStudy, space: SearchSpace) -> None:
        self._search = search
        self._objectives = tuple(space.search.objectives)
        self._bounds = space.search.constraints
        self._domains = space.parameters()

    def tell_complete(self, trial: optuna.Trial, record: TrialRecord) -> None:
        """Tell the values of `record`, which is complete, for a trial of the sampler with the same configuration."""
        for name, violation in self._violations(record).items():
            if name not in COSTS:  # those of costs were set when it was asked
                trial.set_constraint(name, violation)
        self._search.tell(trial, self._values(record))

    def add(
        self, mapping: SpaceMapping, record: TrialRecord, attributes: dict[str, Any], unrunnable: bool = False
    ) -> None:
        """Add a finished trial that the sampler did not draw.

        An `unrunnable` one could not be built, or did not fit in device memory.
        """
        complete = record.state == "COMPLETE"
        static = constraints.violations(constraints.static(self._bounds), record.cost)
        self._search.add_trial(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.PRUNED,
                values=self._values(record) if complete else None,
                params=dict(mapping.sample.params),
                distributions={name: distribution(self._domains[name]) for name in mapping.sample.params},
                user_attrs=attributes,
                constraints=(self._violations(record) if complete else static) | ({"runs": 1.0} if unrunnable else {}),
            )
        )

    def _violations(self, record: TrialRecord) -> dict[str, float]:
        # A metric that was not reported counts as one beyond its bound, whatever the unit.
        return dict.fromkeys(self._bounds, 1.0) | constraints.violations(self._bounds, record.known())

    def _values(self, record: TrialRecord) -> list[float]:
        known = record.values()
        return [known[name] for name in self._objectives]
