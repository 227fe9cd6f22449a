"""One trial of a study, as its journal has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from kdsearch.config.trial import TrialConfig

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Stage = Literal["teacher", "search", "confirm", "control"]
Outcome = Literal["COMPLETE", "PRUNED", "FAIL", "INFEASIBLE"]
State = Literal["RUNNING"] | Outcome


@dataclass
class TrialRecord:
    """One trial as the journal has it. `metrics` are those of the last epoch it reported, `curve` its mIoU by epoch. A
    trial that outlived its driver has no curve before the epoch at which the next driver took it up.

    `origin` says which earlier study trained it, of a trial that warm start brought. `broken` is the bound of the
    search that its results do not keep, in words.
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
        """Everything an objective can name."""
        return {"miou": self.miou, **self.cost}

    def known(self) -> dict[str, float]:
        """Everything a constraint can name."""
        return {**self.metrics, **self.cost}


def trial_record_of(frozen: FrozenTrial) -> TrialRecord | None:
    """A trial of a journal as a record; None for a copy, an import and what was never written down."""
    if "trial" not in frozen.user_attrs:
        return None
    about = frozen.user_attrs["trial"]
    config = TrialConfig.model_validate(about["config"])
    outcome = frozen.user_attrs.get("outcome", {})
    curve = {int(epoch): miou for epoch, miou in outcome.get("curve", {}).items()}
    return TrialRecord(**{"state": "RUNNING", **about, **outcome, "config": config, "curve": curve})


def attributes(record: TrialRecord) -> dict[str, Any]:
    """What a journal says of a trial from its start."""
    return {
        "id": record.id, "stage": record.stage, "config": record.config.model_dump(mode="json"),
        "params": record.params, "cost": record.cost, "origin": record.origin,
    }  # fmt: skip
