"""Early stopping by rungs: at each rung a trial goes on only if it is among the best that reached that rung.

Asynchronous successive halving (Li et al., 2020) with a choice of order. No Ray here: the same object is driven by the
Tune scheduler and can be driven by a simulator.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from kdsearch.run_folder import write_json
from kdsearch.search.frontier import costs, ranks, spread_order

Point = dict[str, float]


class Rungs:
    """The rungs of a study and what each trial reached there.

    `epochs` are the rungs; `reduction` is the share that goes on: the best `1/reduction` of those seen at a rung.
    `stop` orders them: `"pareto"` by non-dominated rank on all objectives, epsilon-net order inside a rank; `"miou"` by
    mIoU alone; `"none"` never stops. Every decision is saved to `path` before it is returned.
    """

    def __init__(
        self,
        epochs: tuple[int, ...],
        objectives: Mapping[Any, str],
        stop: Literal["pareto", "miou", "none"],
        reduction: int,
        path: Path | None = None,
    ) -> None:
        self.objectives = dict(objectives) if stop == "pareto" else {"miou": "max"}
        self.stop = stop
        self.reduction = reduction
        self.path = path
        self.reached: dict[int, dict[str, Point]] = {epoch: {} for epoch in epochs}
        if path is not None and path.exists():
            self._load(path)

    def keep(self, trial_id: str, epoch: int, values: Mapping[str, float]) -> bool:
        """Whether a trial that has just finished `epoch` with these objective values goes on.

        A trial that comes again to a rung (after a restart) is judged by its new values.
        """
        if self.stop == "none" or epoch not in self.reached:
            return True
        rung = self.reached[epoch]
        rung[trial_id] = {name: float(values[name]) for name in self.objectives}
        kept = trial_id in self._best(rung)
        if self.path is not None:
            write_json(self.path, {"rungs": {str(e): points for e, points in self.reached.items()}})
        return kept

    def _best(self, rung: dict[str, Point]) -> list[str]:
        """The trials of a rung that may go on; at least one."""
        ids = list(rung)
        costs_nm = costs([rung[trial_id] for trial_id in ids], self.objectives)
        rank_n = ranks(costs_nm)
        order: list[str] = []
        for rank in range(int(rank_n.max()) + 1):
            members = [i for i, r in enumerate(rank_n) if r == rank]
            order += [ids[members[k]] for k in spread_order(costs_nm[members])]
        return order[: math.ceil(len(order) / self.reduction)]

    def _load(self, path: Path) -> None:
        saved = json.loads(path.read_text())["rungs"]
        for epoch in self.reached:
            self.reached[epoch] = saved.get(str(epoch), {})
