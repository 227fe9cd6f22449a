"""The choice of one student of a frontier: the most accurate or the knee, within a budget."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdsearch.config.metrics import METRICS
from kdsearch.errors import UserError, did_you_mean
from kdsearch.search.summary import FrontierPoint

Best = Literal["miou", "knee"]
OPERATORS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}
STUDENT_FILES = ("model.safetensors", "config.json", "metrics.json")
"""Files in the folder of a student; nothing else is read from it."""


@dataclass(frozen=True)
class ChosenStudent:
    """A student of a finished study: its folder, its point of the frontier, its study, and the reason of the choice.

    One that was trained without a study has an empty `space`, and its folder's name as `study`.

    `origin` names the run folder or the run that it was read from; `stores` is the folder of the study's data stores,
    None where it is not at hand.
    """

    folder: Path
    point: FrontierPoint
    study: str
    space: str
    version: str
    chosen: str
    origin: str
    stores: Path | None = None


def is_confirmed(points: Sequence[FrontierPoint]) -> bool:
    """Whether all of `points` were repeated with other seeds, so that they compare by the means of the repeats."""
    return bool(points) and all(point.miou_mean is not None for point in points)


def choose(
    frontier: Sequence[FrontierPoint], best: Best, budget: str | None = None, cost: str = "gflops"
) -> tuple[FrontierPoint, str]:
    """The point that `best` and `budget` (`"gflops<=5"`) select, and in words the mIoU by which it was chosen.

    The mIoU of the search is biased upwards, since it is the largest of many draws. So where every point within the
    budget was confirmed, the mean over the repeats decides. The budget itself compares the numbers of the search. The
    knee is that of mIoU and `cost`.

    Raises `UserError` where no point is within the budget.
    """
    import numpy as np

    from kdsearch.search.pareto import knee

    points = [point for point in frontier if _within(point, budget)]
    if not points:
        raise UserError(_nothing_within(frontier, budget))
    confirmed = is_confirmed(points)

    def miou(point: FrontierPoint) -> float:
        return point.miou_mean if confirmed and point.miou_mean is not None else point.miou

    how = (
        "mean mIoU of repeats with other seeds"
        if confirmed
        else "mIoU in the search, which is biased upwards: not every candidate was confirmed"
    )
    if best == "miou":
        return max(points, key=miou), how
    return points[knee(np.array([[-miou(point), point.value(cost)] for point in points]))], how


def _nothing_within(frontier: Sequence[FrontierPoint], budget: str | None) -> str:
    metric = METRICS["latency_ms" if "latency_ms" in (budget or "") else "gflops"]
    known = [value for point in frontier if (value := point.value(metric.name)) is not None]
    hint = f" The cheapest has {min(known):.3g} {metric.unit}." if known else " The frontier is empty."
    return f"No student is within {budget or 'the frontier'}.{hint}"


def _within(point: FrontierPoint, budget: str | None) -> bool:
    if budget is None:
        return True
    match = re.fullmatch(r"\s*(\w+)\s*(<=|<|>=|>)\s*(\d+\.?\d*|\.\d+)\s*", budget)
    if match is None:
        raise UserError(f"--budget {budget!r}: expected METRIC<=NUMBER, for example 'gflops<=5'.")
    name, sign, bound = match.groups()
    if name not in METRICS:
        raise UserError(f"--budget {budget!r}: unknown metric '{name}'.{did_you_mean(name, list(METRICS))}")
    value = point.value(name)
    if value is None:
        raise UserError(f"--budget {budget!r}: this study measured no latency (it is searched with --latency).")
    return bool(OPERATORS[sign](value, float(bound)))
