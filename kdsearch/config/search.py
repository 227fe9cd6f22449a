"""Settings of the search and of the confirmation of its frontier: the `search` and `confirm` sections."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from kdsearch.config.metrics import COSTS, METRICS, REPORTED_PREFIXES, Direction, MetricName
from kdsearch.config.named import PluginName
from kdsearch.config.sampler import SamplerConfig, TPEConfig
from kdsearch.config.strict import Listed, Strict
from kdsearch.config.target import TargetText
from kdsearch.errors import did_you_mean

STOP_RULE = PluginName("stop rule", ("forecast", "pareto", "miou", "none"), "STOP_RULES")
"""Names of stop rules: built-in ones, and the keys of `STOP_RULES` of plug-ins."""

_CONSTRAINT = r"^\s*(<=|>=)\s*(\d+\.?\d*(?:[eE][-+]?\d+)?)\s*$"


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric, written `<= 60`."""

    op: Literal["<=", ">="]
    bound: float

    @classmethod
    def parse(cls, text: Any) -> Any:
        """Parse `"<= 60"`; a constraint is returned unchanged. Raises `ValueError`."""
        if isinstance(text, Constraint):
            return text
        match = re.match(_CONSTRAINT, text) if isinstance(text, str) else None
        if match is None:
            raise ValueError("should be text such as '<= 60' or '>= 5'")
        return cls("<=" if match[1] == "<=" else ">=", float(match[2]))

    def violation(self, value: float) -> float:
        """Distance of `value` beyond the bound; at most 0 if the bound holds."""
        return value - self.bound if self.op == "<=" else self.bound - value

    def __str__(self) -> str:
        return f"{self.op} {self.bound:.12g}"


ConstraintText = Annotated[
    Constraint,
    BeforeValidator(Constraint.parse),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": _CONSTRAINT}),
]


class SearchConfig(Strict):
    """Objectives, bounds, sampler and early stopping."""

    trials: PositiveInt = 100
    objectives: dict[MetricName, Direction] = Field(
        {"miou": "max", "gflops": "min"},
        min_length=1,
        description="metrics of the frontier, with their direction",
    )
    constraints: dict[str, ConstraintText] = Field(
        {},
        description="bounds on metrics: a trial that violates a bound on gflops, params_m or latency_ms is not "
        "trained; one that violates a bound on a reported metric (val/miou, val/iou/<class>, time/train_s, ...) does "
        "not enter the frontier",
    )
    latency: TargetText | None = Field(
        None,
        description="device on which each student's latency_ms is measured before training: cpu (one thread), cpu:4, "
        "cuda; needed for bounds on latency_ms and for latency_ms among the objectives",
    )
    rungs: Listed[tuple[PositiveInt, ...]] = Field((), description="epochs after which a trial may be stopped")
    stop: Annotated[str, STOP_RULE] = Field(
        "forecast",
        description="trials stopped at a rung: forecast: those that a complete trial would dominate even after a "
        "fast gain (as pareto until eight are complete); pareto, miou: all but the best share of the rung, by all "
        "objectives or by mIoU; none: no trial; or a stop rule of a plug-in",
    )
    audit: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05, description="share of the stopped trials that continue, to measure how often a stop is wrong"
    )
    sampler: SamplerConfig = Field(TPEConfig(), description="a name, or a name with options of the sampler")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="of the sampler and of the audit")
    reduction: Annotated[int, Field(ge=2)] = Field(
        3, description="pareto, miou: one trial in this many continues at a rung"
    )
    max_failures: NonNegativeInt = Field(
        3,
        description="restarts of a trial without progress: after the death, the hang or an exception of its workers; "
        "then it fails. Waiting for a node is no failure, and lost nodes do not count",
    )
    epoch_timeout: PositiveFloat | None = Field(
        None,
        description="seconds after which an epoch, or the set-up of a trial, counts as hung and its workers are "
        "killed; default: ten times the longest epoch so far and at least 600, for the first epoch at least 7200",
    )
    start_timeout: PositiveFloat = Field(
        900, description="seconds within which the workers of a trial must start, once the cluster has room for them"
    )

    @field_validator("objectives")
    @classmethod
    def _natural_directions(cls, objectives: dict[MetricName, Direction]) -> dict[MetricName, Direction]:
        for metric, direction in objectives.items():
            if direction != METRICS[metric].direction:
                raise ValueError(f"{metric} has only the direction {METRICS[metric].direction}, got {direction}")
        return objectives

    @field_validator("constraints")
    @classmethod
    def _known_metrics(cls, constraints: dict[str, Constraint]) -> dict[str, Constraint]:
        for name in constraints:
            if name not in COSTS and not name.startswith(REPORTED_PREFIXES):
                known = [*COSTS, "val/miou", "val/iou/<class>", "val/temporal_consistency", "time/train_s"]
                raise ValueError(f"no metric is called '{name}'.{did_you_mean(name, known)}")
        return constraints

    @model_validator(mode="after")
    def _latency_is_measured_somewhere(self) -> Self:
        if self.latency is None and ("latency_ms" in self.objectives or "latency_ms" in self.constraints):
            raise ValueError("latency_ms is measured on a device: name it with search.latency, such as cpu or cuda")
        return self

    @field_validator("rungs")
    @classmethod
    def _increasing(cls, rungs: tuple[int, ...]) -> tuple[int, ...]:
        if list(rungs) != sorted(set(rungs)):
            raise ValueError(f"should increase strictly, got {list(rungs)}")
        return rungs


class ConfirmConfig(Strict):
    """Repeated trainings after the search."""

    seeds: NonNegativeInt = Field(
        0,
        description="seeds per frontier member, and per student of it without distillation",
    )
    cache: bool = Field(False, description="read the teacher's cached maps, if the search did; false: run the teacher")
