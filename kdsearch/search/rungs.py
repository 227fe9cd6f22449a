"""Early stopping by rungs: at each rung a trial goes on only while it may still reach the frontier.

No Ray here: the same object is driven by the Tune scheduler and by the simulator.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdsearch.run_folder import write_json
from kdsearch.search.frontier import costs, ranks, spread_order

Point = dict[str, float]

LEAST_COMPLETE = 8
"""Complete trials before the first forecast."""
HOPE = 0.95
"""Quantile of what complete trials gained after a rung that a trial is granted: one in twenty gained more."""


class Rungs:
    """The rungs of a study, what each trial reached there, and what the complete ones reached in the end.

    `epochs` are the rungs; `stop` says who is stopped there:

    - `"forecast"`: a trial that would be dominated by a complete one even if its mIoU grew as much as that of only
      one complete trial in twenty did after this rung. The other objectives are known before training.
    - `"pareto"`: all but the best `1/reduction` of those seen at the rung, by non-dominated rank on all objectives, in
      epsilon-net order inside a rank (asynchronous successive halving, Li et al., 2020; Salinas et al., 2021).
    - `"miou"`: the same by mIoU alone.
    - `"none"`: nobody.

    Every decision is saved to `path` before it is returned.

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
        self.ends: dict[str, Point] = {}
        self.audited: dict[str, int] = {}
        """The rung at which each audited trial would have been stopped."""
        if path is not None and path.exists():
            self._load(path)

    def keep(self, trial_id: str, epoch: int, values: Mapping[str, float]) -> bool:
        """Whether a trial that has just finished `epoch` with these objective values goes on.

        A trial that comes again to a rung (after a restart) is judged by its new values.
        """
        if self.stop == "none" or epoch not in self.reached:
            return True
        self.reached[epoch][trial_id] = self._point(values)
        if self.audited.get(trial_id, epoch) == epoch:
            self.audited.pop(trial_id, None)
            kept = self._may_win(trial_id, epoch) if self.stop == "forecast" else self._among_best(trial_id, epoch)
            if not kept and not self._is_audited(trial_id):
                self._save()
                return False
            if not kept:
                self.audited[trial_id] = epoch
        self._save()
        return True

    def complete(self, trial_id: str, values: Mapping[str, float]) -> None:
        """A trial has reached its last epoch with these objective values."""
        if self.stop != "none":
            self.ends[trial_id] = self._point(values)
            self._save()

    def _point(self, values: Mapping[str, float]) -> Point:
        return {name: float(values[name]) for name in self.objectives}

    # ---- forecast ------------------------------------------------------------------------------------------------

    def _may_win(self, trial_id: str, epoch: int) -> bool:
        """Whether no complete trial dominates, or equals, the best that this one may be expected to reach."""
        rung = self.reached[epoch]
        if len(self.ends) < LEAST_COMPLETE or "miou" not in self.objectives:
            return True
        gains = [end["miou"] - rung[other]["miou"] for other, end in self.ends.items() if other in rung]
        if not gains:
            return True
        hoped = rung[trial_id] | {"miou": rung[trial_id]["miou"] + float(np.quantile(gains, HOPE))}
        best = costs(list(self.ends.values()), self.objectives)
        return not (best <= costs([hoped], self.objectives)).all(axis=1).any()

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

    def _save(self) -> None:
        if self.path is not None:
            rungs = {str(epoch): points for epoch, points in self.reached.items()}
            write_json(self.path, {"rungs": rungs, "ends": self.ends, "audited": self.audited})

    def _load(self, path: Path) -> None:
        saved = json.loads(path.read_text())
        self.ends, self.audited = saved.get("ends", {}), saved.get("audited", {})
        for epoch in self.reached:
            self.reached[epoch] = saved["rungs"].get(str(epoch), {})
