"""Charts of the settings that were searched: parallel coordinates, and the importance of each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection

from kdsearch.config.metrics import COSTS, METRICS
from kdsearch.report import sentences
from kdsearch.report.axes import FRONT, LABEL, MAX_LINES, MEMBER_COLORS, REST, empty, new_axes, style
from kdsearch.report.svg import PALETTE, titles_id

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kdsearch.report.results import Results, TrialRow

MOST_PARALLEL = 6
MOST_IMPORTANT = 8
ABSENT = -0.12
"""Height of a setting that a trial does not have, below the others, which lie between 0 and 1."""


def varied_settings(results: Results) -> list[str]:
    """Settings that differ between complete trials, the most important for mIoU and the frontier first."""
    complete = _complete(results)
    names = dict.fromkeys(name for trial in complete for name in trial.settings)
    varied = [name for name in names if len({json.dumps(t.settings.get(name)) for t in complete}) > 1]
    shares = [each for objective, each in results.importance.items() if objective not in COSTS]
    return sorted(varied, key=lambda name: -max((share.get(name, 0.0) for share in shares), default=0.0))


def plot_parallel(results: Results, ax: Axes | None = None) -> Axes:
    """Parallel coordinates of complete trials: the settings that matter most, then cost and mIoU."""
    ax = ax or new_axes(height=3.2, left=0.2)
    complete, names = _complete(results), varied_settings(results)[:MOST_PARALLEL]
    if len(complete) < 2 or not names:
        return empty(ax, "This needs two complete trials with different settings.")
    cost = results.main_cost
    columns = [_column(name, [t.settings.get(name) for t in complete]) for name in names]
    columns += [_column(METRICS[cost].column, [t.cost(cost) for t in complete])]
    columns += [_column(METRICS["miou"].column, [t.miou for t in complete])]
    ids = {point.trial.id for point in results.points}
    lines = [[(i, column.heights[row]) for i, column in enumerate(columns)] for row in range(len(complete))]
    others = [i for i, t in enumerate(complete) if t.id not in ids][-MAX_LINES:]
    members = [i for i, t in enumerate(complete) if t.id in ids]
    for rows, color, width in ((others, REST, 0.6), (members, FRONT, 1.2)):
        if rows:
            drawn = LineCollection([lines[i] for i in rows], colors=color, linewidths=width, zorder=2)
            drawn.set_gid(titles_id([complete[i].id for i in rows]))
            ax.add_collection(drawn)
    style(ax, "", "")
    ax.grid(visible=False)
    ax.spines["bottom"].set_visible(False)
    ax.set(xticks=[], yticks=[], xlim=(-0.3, len(columns) - 0.4), ylim=(-0.2, 1.25))
    for i, column in enumerate(columns):
        _draw_column(ax, i, column)
    return ax


def plot_importance(results: Results, ax: Axes | None = None) -> Axes:
    """The share of each setting in what sets the best trials apart, per objective and for the frontier."""
    names = varied_settings(results)[:MOST_IMPORTANT]
    ax = ax or new_axes(height=1.0 + 0.3 * max(3, len(names)), left=2.0)
    if not results.importance or not names:
        return empty(ax, sentences.importance(results))
    style(ax, "share of the importance (PED-ANOVA)", "")
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=PALETTE["line"], linewidth=0.7)
    thickness = 0.8 / len(results.importance)
    for k, (objective, shares) in enumerate(results.importance.items()):
        at = np.arange(len(names)) - 0.4 + (k + 0.5) * thickness
        label = METRICS[objective].column if objective in METRICS else objective
        ax.barh(at, [shares.get(name, 0.0) for name in names], thickness, color=MEMBER_COLORS[k], label=label)
    ax.set_yticks(range(len(names)), [_shortened(name, 30) for name in names])
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    ax.legend(loc="lower right", frameon=False, fontsize=LABEL, labelcolor=PALETTE["soft"])
    return ax


@dataclass(frozen=True)
class _Column:
    """One axis of the parallel coordinates: the height of each trial, and labels by height."""

    name: str
    heights: Sequence[float]
    labels: Sequence[tuple[float, str]]


def _column(name: str, values: Sequence[Any]) -> _Column:
    known = [value for value in values if value is not None]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    if numeric and len(set(known)) > 1:
        low, high = min(known), max(known)
        scale: Callable[[float], float] = math.log if low > 0 and high > 3 * low else float
        span = scale(high) - scale(low)
        heights = [ABSENT if value is None else (scale(value) - scale(low)) / span for value in values]
        return _Column(name, heights, [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")])
    kinds = sorted({str(value) for value in known})
    places = {kind: 0.5 if len(kinds) < 2 else i / (len(kinds) - 1) for i, kind in enumerate(kinds)}
    heights = [ABSENT if value is None else places[str(value)] for value in values]
    return _Column(name, heights, [(places[kind], kind if len(kind) <= 15 else f"{kind[:14]}…") for kind in kinds])


def _draw_column(ax: Axes, at: int, column: _Column) -> None:
    ax.plot([at, at], [0, 1], color=PALETTE["soft"], linewidth=0.8, zorder=3)
    name = _shortened(column.name, 26)
    ax.text(at, 1.18 if at % 2 else 1.09, name, ha="center", fontsize=LABEL, color=PALETTE["text"])
    for height, label in column.labels:
        ax.annotate(
            label, (at, height), xytext=(3, 0), textcoords="offset points", va="center", fontsize=LABEL - 0.5,
            color=PALETTE["text"], zorder=4,
            bbox={"facecolor": PALETTE["back"], "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
        )  # fmt: skip
    if ABSENT in column.heights:
        ax.text(at, ABSENT - 0.06, "not in this branch", ha="center", fontsize=LABEL - 1, color=PALETTE["soft"])


def _complete(results: Results) -> list[TrialRow]:
    return [t for t in results.search if t.state == "COMPLETE" and math.isfinite(t.miou)]


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else "…" + text[-length + 1 :]
