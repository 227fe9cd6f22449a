"""Stop rules: which trials continue after a rung.

Contract
--------

A stop rule is a subclass of `StopRule`. `keep` is called once per trial and rung, in the order in which trials reach
the rung. `on_complete` is called when a trial has reached its last epoch. A decision has to follow from the arguments
of `keep` and from earlier calls of `on_complete` alone: a resumed study repeats those calls to rebuild the rule.
`kdsearch.testing.stop_rules.StopRuleConformance` tests this contract.

Values
------

A point maps each objective to its value (`{"miou": 0.41, "gflops": 2.3}`), not negated: `objectives` gives the
directions. Costs are known before training, so only `miou` changes between rungs.

State
-----

`RungState` records every decision on disk and handles the audit; a rule holds its state in memory and writes nothing.

Plug-ins list their rules by name in `STOP_RULES`, a mapping from a name to a subclass.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Mapping, Sequence

import numpy as np

from kdsearch import plugins
from kdsearch.errors import UserError, did_you_mean
from kdsearch.search.pareto import costs, non_dominated, ranks, spread_order

Point = dict[str, float]

LEAST_COMPLETE = 8
"""Complete trials before the first forecast."""
GAIN_QUANTILE = 0.95
"""Quantile of the gains of complete trials after a rung that a forecast adds: one trial in twenty gained more."""


class StopRule:
    """Base of stop rules; see the module for the contract. The base stops no trial."""

    def __init__(self, objectives: Mapping[str, str], reduction: int) -> None:
        """`objectives` maps metrics to `max` or `min`; `reduction` is `search.reduction`."""
        self.objectives = dict(objectives)
        self.reduction = reduction

    def keep(self, rung: Mapping[str, Point], trial_id: str, epoch: int) -> bool:
        """Whether the trial continues. `rung` holds the points of all trials seen at `epoch`, this one's included."""
        return True

    def on_complete(self, point: Point, reached: Mapping[int, Point]) -> None:
        """A trial has reached its last epoch at `point`; `reached` maps rungs to its points there."""


class NeverStop(StopRule):
    """Stops no trial (`search.stop: none`)."""


class ParetoHalving(StopRule):
    """Asynchronous successive halving on all objectives (Li et al., 2020; Salinas et al., 2021).

    The best `1/reduction` of the trials seen at a rung continue, by non-dominated rank, in epsilon-net order inside a
    rank; of the first ones at least one does.
    """

    def keep(self, rung: Mapping[str, Point], trial_id: str, epoch: int) -> bool:
        ids = list(rung)
        costs_nm = costs(list(rung.values()), self._compared())
        rank_n = ranks(costs_nm)
        own = rank_n[ids.index(trial_id)]
        room = math.ceil(len(ids) / self.reduction) - int((rank_n < own).sum())
        peers = np.flatnonzero(rank_n == own)
        if room <= 0 or room >= len(peers):
            return room > 0
        return trial_id in [ids[peers[k]] for k in spread_order(costs_nm[peers])[:room]]

    def _compared(self) -> Mapping[str, str]:
        return self.objectives


class MiouHalving(ParetoHalving):
    """Asynchronous successive halving on mIoU alone."""

    def _compared(self) -> Mapping[str, str]:
        return {"miou": "max"}


class Forecast(ParetoHalving):
    """Stops a trial that a complete one would dominate even after a gain that only one in twenty exceeded.

    The other objectives are known before training. While fewer than `LEAST_COMPLETE` trials are complete there is
    nothing to forecast from, and successive halving on all objectives decides.
    """

    def __init__(self, objectives: Mapping[str, str], reduction: int) -> None:
        super().__init__(objectives, reduction)
        self._complete = 0
        self._best: list[Point] = []
        self._gains: dict[int, list[float]] = {}

    def keep(self, rung: Mapping[str, Point], trial_id: str, epoch: int) -> bool:
        gains = self._gains.get(epoch, [])
        if self._complete < LEAST_COMPLETE or not gains:
            return super().keep(rung, trial_id, epoch)
        own = rung[trial_id]
        hoped = own | {"miou": own["miou"] + _quantile(gains, GAIN_QUANTILE)}
        best = costs(self._best, self.objectives)
        return not (best <= costs([hoped], self.objectives)).all(axis=1).any()

    def on_complete(self, point: Point, reached: Mapping[int, Point]) -> None:
        self._complete += 1
        candidates = [*self._best, point]
        mask = non_dominated(costs(candidates, self.objectives))
        self._best = [each for each, kept in zip(candidates, mask, strict=True) if kept]
        for epoch, at_rung in reached.items():
            if "miou" in point:
                insort(self._gains.setdefault(epoch, []), point["miou"] - at_rung["miou"])


STOP_RULES: dict[str, type[StopRule]] = {
    "forecast": Forecast,
    "pareto": ParetoHalving,
    "miou": MiouHalving,
    "none": NeverStop,
}
"""Built-in rules by the name that `search.stop` gives them."""


def stop_rules() -> dict[str, type[StopRule]]:
    """Built-in rules and those of plug-ins, by name. `UserError` for a name twice, or for no subclass of `StopRule`."""
    found = dict(STOP_RULES)
    for module, rules in plugins.collect("STOP_RULES"):
        for name, rule in rules.items():
            if not (isinstance(rule, type) and issubclass(rule, StopRule)):
                raise UserError(f"plug-in {module.__name__}: STOP_RULES['{name}'] is {rule!r}, no StopRule class.")
            plugins.add_once(found, name, rule, module)
    return found


def make_stop_rule(name: str, objectives: Mapping[str, str], reduction: int) -> StopRule:
    """The rule called `name`. Raises `UserError` for an unknown name."""
    known = stop_rules()
    if name not in known:
        raise UserError(f"search.stop: there is no stop rule '{name}'.{did_you_mean(name, list(known))}")
    return known[name](objectives, reduction)


def _quantile(ordered: Sequence[float], q: float) -> float:
    """The quantile `q` of numbers in ascending order, linear between neighbours."""
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
