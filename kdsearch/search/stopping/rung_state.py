"""Rung state: the points of all trials at each rung, the decisions taken there, and the audit of them.

No Ray here: the Tune scheduler and the simulator drive the same object.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdsearch.io.json_text import to_json
from kdsearch.search.pareto import costs, ranks
from kdsearch.search.stopping.rules import NeverStop, Point, make_stop_rule


class RungState:
    """Applies the stop rule named `stop` at the rungs `epochs`, and records each decision.

    A decision is a line of the file at `path` before it is returned, and final: a resumed driver that reaches the same
    rung with the same values repeats it.

    A share `audit` of the trials that the rule would stop continues instead: they train to their end and measure how
    often stopping is wrong. The choice follows from `seed` and the trial's id, so a resumed driver chooses the same.
    """

    def __init__(
        self,
        epochs: tuple[int, ...],
        objectives: Mapping[Any, str],
        stop: str,
        reduction: int,
        path: Path | None = None,
        audit: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.objectives: dict[str, str] = {str(name): direction for name, direction in objectives.items()}
        self.rule = make_stop_rule(stop, self.objectives, reduction)
        self.path = path
        self.audit, self.seed = audit, seed
        self.reached: dict[int, dict[str, Point]] = {epoch: {} for epoch in epochs}
        self.ends: dict[str, Point] = {}
        self.audited: dict[str, int] = {}
        """The rung at which each audited trial would have been stopped."""
        self._kept: dict[tuple[str, int], bool] = {}
        if path is not None and path.exists():
            self._load(path)

    def keep(self, trial_id: str, epoch: int, values: Mapping[str, float]) -> bool:
        """Whether a trial that has just finished `epoch` with these objective values continues.

        A trial that reaches a rung again with other values, after a restart from an earlier checkpoint, gets a new
        decision.
        """
        if isinstance(self.rule, NeverStop) or epoch not in self.reached:
            return True
        point = self._point(values)
        if self.reached[epoch].get(trial_id) == point:
            return self._kept[trial_id, epoch]
        self.reached[epoch][trial_id] = point
        kept = True
        if self.audited.get(trial_id, epoch) == epoch:
            self.audited.pop(trial_id, None)
            kept = self.rule.keep(self._rung(epoch), trial_id, epoch)
            if not kept and self._is_audited(trial_id):
                kept, self.audited[trial_id] = True, epoch
        self._kept[trial_id, epoch] = kept
        audited = self.audited.get(trial_id) == epoch
        self._append({"trial": trial_id, "epoch": epoch, "values": dict(values), "kept": kept, "audited": audited})
        return kept

    def complete(self, trial_id: str, values: Mapping[str, float]) -> None:
        """A trial has reached its last epoch with these objective values."""
        if not isinstance(self.rule, NeverStop):
            self._end(trial_id, self._point(values))
            self._append({"trial": trial_id, "end": dict(values)})

    def audit_report(self) -> dict[str, Any] | None:
        """How often stopping was wrong; None while no audited trial has reached its end.

        `complete` audited trials did; `wrong` of them, `trials`, are dominated by no complete trial.
        """
        complete = [name for name in self.audited if name in self.ends]
        if not complete:
            return None
        rank_n = ranks(costs(list(self.ends.values()), self.objectives))
        wrong = [name for name, rank in zip(self.ends, rank_n, strict=True) if rank == 0 and name in self.audited]
        return {"audited": len(self.audited), "complete": len(complete), "wrong": len(wrong), "trials": wrong}

    def _point(self, values: Mapping[str, float]) -> Point:
        return {name: float(values[name]) for name in self.objectives}

    def _rung(self, epoch: int) -> dict[str, Point]:
        """The points that are compared. Audited trials are left out after their rung: no decision depends on them."""
        return {name: point for name, point in self.reached[epoch].items() if self.audited.get(name, epoch) >= epoch}

    def _end(self, trial_id: str, point: Point) -> None:
        self.ends[trial_id] = point
        self.rule.on_complete(point, {e: rung[trial_id] for e, rung in self.reached.items() if trial_id in rung})

    def _is_audited(self, trial_id: str) -> bool:
        digest = hashlib.sha256(f"{self.seed} {trial_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.audit * 2**64

    # ---- the file ------------------------------------------------------------------------------------------------

    def _append(self, entry: dict[str, Any]) -> None:
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(to_json(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def _load(self, path: Path) -> None:
        lines = path.read_text().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            # A driver was killed in the middle of this line: nobody has acted on that decision yet.
            os.truncate(path, path.stat().st_size - len(lines.pop().encode()))
        for line in lines:
            entry = json.loads(line)
            trial_id, epoch = str(entry["trial"]), entry.get("epoch")
            if epoch is None:
                self._end(trial_id, self._point(entry["end"]))
            elif epoch in self.reached:  # the rungs of a resumed study may have changed
                self.reached[epoch][trial_id] = self._point(entry["values"])
                self._kept[trial_id, epoch] = bool(entry["kept"])
                if entry["audited"]:
                    self.audited[trial_id] = epoch
                elif self.audited.get(trial_id) == epoch:
                    del self.audited[trial_id]
