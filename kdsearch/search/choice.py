"""Which point of a frontier: the most accurate or the knee, within a budget."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from typing import Any, Literal

from kdsearch.errors import UserError, did_you_mean

Best = Literal["miou", "knee"]
Point = dict[str, Any]
"""A member of the frontier as `summary.json` has it: `trial`, `miou`, `gflops`, `params_m`, `miou_mean`, ..."""

OPERATORS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}
METRICS = ["miou", "gflops", "params_m"]
"""What every point has; one of a study that measured latency has `latency_ms` too."""


def is_confirmed(points: Sequence[Point]) -> bool:
    """Whether all of `points` were trained again with other seeds, so that they compare by what these reached."""
    return bool(points) and all(point.get("miou_mean") is not None for point in points)


def choose(frontier: Sequence[Point], best: Best, budget: str | None = None, cost: str = "gflops") -> tuple[Point, str]:
    """The point that `best` and `budget` (`"gflops<=5"`) name, and by which mIoU it was chosen, in words.

    The mIoU that the search found is biased upwards, for it is the largest of many draws; so where every point within
    the budget was confirmed, the mean over the repeats decides. The budget itself compares the search's numbers. The
    knee is that of mIoU and `cost`.

    Raises `UserError` where no point is within the budget.
    """
    import numpy as np

    from kdsearch.search.pareto import knee

    points = [point for point in frontier if _within(point, budget)]
    if not points:
        name, unit = ("latency_ms", "ms") if "latency_ms" in (budget or "") else ("gflops", "GFLOPs")
        least = min((point[name] for point in frontier), default=None)
        hint = " The frontier is empty." if least is None else f" The cheapest has {least:.3g} {unit}."
        raise UserError(f"No student is within {budget or 'the frontier'}.{hint}")
    by = "miou_mean" if is_confirmed(points) else "miou"
    how = (
        "mean mIoU of repeats with other seeds"
        if by == "miou_mean"
        else "mIoU in the search, which is biased upwards: not every candidate was confirmed"
    )
    if best == "miou":
        return max(points, key=lambda point: point[by]), how
    return points[knee(np.array([[-point[by], point[cost]] for point in points]))], how


def _within(point: Point, budget: str | None) -> bool:
    if budget is None:
        return True
    match = re.fullmatch(r"\s*(\w+)\s*(<=|<|>=|>)\s*(\d+\.?\d*|\.\d+)\s*", budget)
    if match is None:
        raise UserError(f"--budget {budget!r}: expected METRIC<=NUMBER, for example 'gflops<=5'.")
    name, sign, bound = match.groups()
    if name == "latency_ms" and name not in point:
        raise UserError(f"--budget {budget!r}: this study measured no latency (kdsearch run --latency).")
    if name not in [*METRICS, "latency_ms"]:
        raise UserError(f"--budget {budget!r}: unknown metric '{name}'.{did_you_mean(name, METRICS)}")
    return bool(OPERATORS[sign](point[name], float(bound)))
