"""A plan: the measured trials of a space, and the estimated cost of its study."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class PlanRow:
    """One measured trial: seconds per step and per full training, shares of a step, GB per rank.

    `waiting` is the ratio of wall time to computing time of the measurement; `problem` the reason of a missing one.
    """

    name: str
    student: str
    terms: list[str]
    gflops: float
    batch: int
    images: int
    step_s: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    epoch_s: float = 0.0
    val_share: float = 0.0
    full_s: float = 0.0
    memory_gb: dict[str, float] = field(default_factory=dict)
    waiting: float = 1.0
    problem: str = ""


@dataclass
class Plan:
    """The content of `kdsearch plan --json`; times in seconds, `slot_s` and `wall_s` from least to most."""

    space: str
    data: str
    images: dict[str, int]
    size: tuple[int, int]
    crop: tuple[int, int]
    machine: str
    slots: int
    gpus_per_slot: float
    ranks: int
    trials: int
    rows: list[PlanRow] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    cached: dict[str, Any] | None = None
    total: dict[str, Any] = field(default_factory=dict)
    teacher_share: float = 0.0
    disk: dict[str, float] = field(default_factory=dict)
    disk_notes: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, as JSON holds them."""
        return asdict(self)
