"""The metrics that a study may optimise or bound: one table of units, directions, axis titles and number formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Direction = Literal["max", "min"]
MetricName = Literal["miou", "gflops", "params_m", "latency_ms"]


@dataclass(frozen=True)
class Metric:
    """One metric. `unit` follows a number in prose, `axis` titles a chart, `column` a table; `digits` is a format."""

    name: MetricName
    direction: Direction
    unit: str
    axis: str
    column: str
    digits: str
    static: bool = True
    """Whether the metric is known before training; such a metric is a cost."""

    def format(self, value: float) -> str:
        """The number alone, such as `0.45`."""
        return f"{value:{self.digits}}"

    def text(self, value: float) -> str:
        """The number with its unit, such as `0.45 GFLOPs`."""
        return f"{self.format(value)} {self.unit}".strip()


_ALL = (
    Metric("miou", "max", "mIoU", "mIoU on val", "mIoU", ".3f", static=False),
    Metric("latency_ms", "min", "ms", "latency per image (ms)", "ms", ".3g"),
    Metric("gflops", "min", "GFLOPs", "GFLOPs per image (2 x MAC)", "GFLOPs", ".2f"),
    Metric("params_m", "min", "M parameters", "parameters (millions)", "params M", ".2f"),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by name. Costs are in order of precedence for the main cost of a study."""
assert set(METRICS) == set(get_args(MetricName))

COSTS = tuple(metric.name for metric in _ALL if metric.static)
"""Metrics that are known before training."""

REPORTED_PREFIXES = ("val/", "time/", "loss/", "grad_ratio/")
"""Prefixes of the metrics that a trial reports after each epoch."""

TOTAL_SECONDS = "time/total_s"
"""Metric of an epoch: seconds of all epochs of the trial so far, whoever trained them. Checkpoints keep it."""


def main_cost(objectives: Mapping[Any, str]) -> str:
    """The cost among the objectives that frontiers are drawn against, sorted by, and have their knee in."""
    return next((name for name in COSTS if name in objectives), "gflops")


@dataclass(frozen=True)
class Cost:
    """Cost of inference of one network.

    `gflops` is 2 x MAC / 1e9 per image, `params_m` are millions of parameters, and `latency_ms` is None before a
    measurement.
    """

    gflops: float
    params_m: float
    latency_ms: float | None = None

    def to_dict(self) -> dict[str, float]:
        """The known costs by metric name."""
        known = {"gflops": self.gflops, "params_m": self.params_m}
        return known if self.latency_ms is None else known | {"latency_ms": self.latency_ms}
