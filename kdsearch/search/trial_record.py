"""The record of one trial, and its form in the journal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from kdsearch.config.trial import TrialConfig
from kdsearch.io.json_text import finite

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Stage = Literal["teacher", "search", "confirm", "control"]
Outcome = Literal["COMPLETE", "PRUNED", "FAIL", "INFEASIBLE"]
State = Literal["RUNNING"] | Outcome


@dataclass
class TrialRecord:
    """One trial: its configuration, its costs before training, and its results so far.

    `metrics` are those of the last reported epoch, `curve` the mIoU by epoch. After a change of driver, `curve` lacks
    the epochs of a running trial that the earlier driver received. `origin` names the earlier study that trained it, if
    warm start imported it. `broken` is the constraint that its results break, in words.
    """

    id: str
    stage: Stage
    state: State
    config: TrialConfig
    params: dict[str, Any]
    cost: dict[str, float]
    epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    curve: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""
    origin: str = ""
    broken: str = ""

    @property
    def miou(self) -> float:
        return self.metrics.get("val/miou", float("nan"))

    @property
    def feasible(self) -> bool:
        """Whether it may stand on the frontier once it is complete."""
        return not self.broken

    def values(self) -> dict[str, float]:
        """Values of everything that can be an objective."""
        return {"miou": self.miou, **self.cost}

    def without_value(self, objectives: Iterable[str]) -> str:
        """The first objective that is not a number, in words; empty if all are."""
        values = self.values()
        bad = [name for name in objectives if not math.isfinite(values.get(name, math.nan))]
        return f"the objective {bad[0]} is not a number after epoch {self.epoch}" if bad else ""

    def known(self) -> dict[str, float]:
        """Values of everything that can be constrained."""
        return {**self.metrics, **self.cost}


def trial_record_of(frozen: FrozenTrial) -> TrialRecord | None:
    """The record in a trial of a journal; None for a duplicate, an import, and a draw that was never written down."""
    if "trial" not in frozen.user_attrs:
        return None
    about = frozen.user_attrs["trial"]
    config = TrialConfig.model_validate(about["config"])
    outcome = frozen.user_attrs.get("outcome", {})
    curve = finite({int(epoch): miou for epoch, miou in outcome.get("curve", {}).items()})
    metrics = finite(outcome.get("metrics", {}))
    values = {"state": "RUNNING", **about, **outcome, "config": config, "curve": curve, "metrics": metrics}
    record = TrialRecord(**values)
    if record.state == "COMPLETE" and (reason := record.without_value(["miou"])):
        record.state, record.reason = "FAIL", reason  # kdsearch 0.1 took a NaN for a result
    return record


def attributes(record: TrialRecord) -> dict[str, Any]:
    """The part of a record that the journal has from the start of the trial."""
    return {
        "id": record.id, "stage": record.stage, "config": record.config.model_dump(mode="json"),
        "params": record.params, "cost": record.cost, "origin": record.origin,
    }  # fmt: skip
