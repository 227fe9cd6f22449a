"""Early stopping by rungs: at each rung a trial goes on only while it may still reach the frontier.

No Ray here: the same object is driven by the Tune scheduler and by the simulator.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from bisect import insort
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdsearch.search.pareto import costs, non_dominated, ranks, spread_order

Point = dict[str, float]

LEAST_COMPLETE = 8
"""Complete trials before the first forecast."""
HOPE = 0.95
"""Quantile of what complete trials gained after a rung that a trial is granted: one in twenty gained more."""


class Rungs:
    """The rungs of a study, what each trial reached there, and what the complete ones reached in the end.

    `epochs` are the rungs; `stop` says who is stopped there:

    - `"forecast"`: a trial that would be dominated by a complete one even if its mIoU grew as much as that of only
      one complete trial in twenty did after this rung. The other objectives are known before training. While fewer than
      eight trials are complete there is nothing to forecast from, and `"pareto"` decides.
    - `"pareto"`: all but the best `1/reduction` of those seen at the rung, by non-dominated rank on all objectives, in
      epsilon-net order inside a rank (asynchronous successive halving, Li et al., 2020; Salinas et al., 2021).
    - `"miou"`: the same by mIoU alone.
    - `"none"`: nobody.

    Every decision is a line of the file at `path` before it is returned, and stands: a driver that takes over and is
    asked again decides the same, whatever it knows by then.

    A share `audit` of the trials that would be stopped is not: they train to their end and show how often stopping is
    wrong. Which ones follows from `seed` and the trial's id alone, so that a resumed driver decides the same.
    """

    def __init__(
        self,
        epochs: tuple[int, ...],
        objectives: Mapping[Any, str],
        stop: Literal["forecast", "pareto", "miou", "none"],
        reduction: int,
        path: Path | None = None,
        audit: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.objectives = dict(objectives)
        self.stop = stop
        self.reduction = reduction
        self.path = path
        self.audit, self.seed = audit, seed
        self.reached: dict[int, dict[str, Point]] = {epoch: {} for epoch in epochs}
        self._kept: dict[tuple[str, int], bool] = {}
        self.ends: dict[str, Point] = {}
        self.audited: dict[str, int] = {}
        """The rung at which each audited trial would have been stopped."""
        self._best: list[Point] = []
        """Of `ends`, those that no other dominates."""
        self._gains: dict[int, list[float]] = {epoch: [] for epoch in epochs}
        """What complete trials gained in mIoU after each rung, in order of size."""
        if path is not None and path.exists():
            self._load(path)

    def keep(self, trial_id: str, epoch: int, values: Mapping[str, float]) -> bool:
        """Whether a trial that has just finished `epoch` with these objective values goes on.

        A trial that comes to a rung again, from a checkpoint before it and with other values, is judged anew.
        """
        if self.stop == "none" or epoch not in self.reached:
            return True
        point = self._point(values)
        if self.reached[epoch].get(trial_id) == point:
            return self._kept[trial_id, epoch]
        self.reached[epoch][trial_id] = point
        kept = True
        if self.audited.get(trial_id, epoch) == epoch:
            self.audited.pop(trial_id, None)
            # A forecast needs complete trials; until there are some, successive halving decides.
            forecast = self.stop == "forecast" and len(self.ends) >= LEAST_COMPLETE and bool(self._gains[epoch])
            kept = self._may_win(trial_id, epoch) if forecast else self._among_best(trial_id, epoch)
            if not kept and self._is_audited(trial_id):
                kept, self.audited[trial_id] = True, epoch
        self._kept[trial_id, epoch] = kept
        audited = self.audited.get(trial_id) == epoch
        self._append({"trial": trial_id, "epoch": epoch, "values": dict(values), "kept": kept, "audited": audited})
        return kept

    def complete(self, trial_id: str, values: Mapping[str, float]) -> None:
        """A trial has reached its last epoch with these objective values."""
        if self.stop != "none":
            self._end(trial_id, self._point(values))
            self._append({"trial": trial_id, "end": dict(values)})

    def _point(self, values: Mapping[str, float]) -> Point:
        return {name: float(values[name]) for name in self.objectives}

    # ---- forecast ------------------------------------------------------------------------------------------------

    def _may_win(self, trial_id: str, epoch: int) -> bool:
        """Whether no complete trial dominates, or equals, the best that this one may be expected to reach."""
        own = self.reached[epoch][trial_id]
        hoped = own | {"miou": own["miou"] + _quantile(self._gains[epoch], HOPE)}
        best = costs(self._best, self.objectives)
        return not (best <= costs([hoped], self.objectives)).all(axis=1).any()

    def _end(self, trial_id: str, point: Point) -> None:
        self.ends[trial_id] = point
        candidates = [*self._best, point]
        mask = non_dominated(costs(candidates, self.objectives))
        self._best = [each for each, kept in zip(candidates, mask, strict=True) if kept]
        for epoch, rung in self.reached.items():
            if trial_id in rung and "miou" in point:
                insort(self._gains[epoch], point["miou"] - rung[trial_id]["miou"])

    # ---- successive halving --------------------------------------------------------------------------------------

    def _among_best(self, trial_id: str, epoch: int) -> bool:
        """Whether a trial is in the share of its rung that goes on; of the first ones, at least one is."""
        # Audited trials are not compared after their rung: nobody is judged differently for their sake.
        rung = {name: point for name, point in self.reached[epoch].items() if self.audited.get(name, epoch) >= epoch}
        ids = list(rung)
        costs_nm = costs(list(rung.values()), {"miou": "max"} if self.stop == "miou" else self.objectives)
        rank_n = ranks(costs_nm)
        own = rank_n[ids.index(trial_id)]
        room = math.ceil(len(ids) / self.reduction) - int((rank_n < own).sum())
        peers = np.flatnonzero(rank_n == own)
        if room <= 0 or room >= len(peers):
            return room > 0
        return trial_id in [ids[peers[k]] for k in spread_order(costs_nm[peers])[:room]]

    # ---- audit and state -----------------------------------------------------------------------------------------

    def _is_audited(self, trial_id: str) -> bool:
        digest = hashlib.sha256(f"{self.seed} {trial_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.audit * 2**64

    def audit_report(self) -> dict[str, Any] | None:
        """How often stopping was wrong: None while no audited trial has reached its end.

        `complete` audited trials did; `wrong` of them, `trials`, are then dominated by no complete trial.
        """
        complete = [name for name in self.audited if name in self.ends]
        if not complete:
            return None
        rank_n = ranks(costs(list(self.ends.values()), self.objectives))
        wrong = [name for name, rank in zip(self.ends, rank_n, strict=True) if rank == 0 and name in self.audited]
        return {"audited": len(self.audited), "complete": len(complete), "wrong": len(wrong), "trials": wrong}

    def _append(self, entry: dict[str, Any]) -> None:
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def _load(self, path: Path) -> None:
        lines = path.read_text().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            # A driver was killed while it wrote: nobody had acted on that decision.
            os.truncate(path, path.stat().st_size - len(lines.pop().encode()))
        for line in lines:
            entry = json.loads(line)
            trial_id, epoch = str(entry["trial"]), entry.get("epoch")
            if epoch is None:
                self._end(trial_id, self._point(entry["end"]))
            elif epoch in self.reached:  # the rungs of a study that goes on may have changed
                self.reached[epoch][trial_id] = self._point(entry["values"])
                self._kept[trial_id, epoch] = bool(entry["kept"])
                if entry["audited"]:
                    self.audited[trial_id] = epoch
                elif self.audited.get(trial_id) == epoch:
                    del self.audited[trial_id]


def _quantile(ordered: Sequence[float], q: float) -> float:
    """The quantile `q` of numbers in order of size, linear between two of them."""
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
