"""The static charts of a study, drawn with matplotlib: for `report.html`, `frontier.png` and the Python library.

Each function draws on the axes `ax`, or on a new figure where there are none, and returns the axes. The figures belong
to no window and no global state, so they can be drawn in any thread. Where there is nothing to draw yet, the axes hold
one sentence and are switched off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.collections import LineCollection
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from kdsearch.config.metrics import METRICS
from kdsearch.report.axes import (
    FONT,
    FRONT,
    LABEL,
    MAX_LINES,
    MEMBER_COLORS,
    REST,
    SEEDS,
    STOPPED,
    empty,
    new_axes,
    style,
)  # fmt: skip
from kdsearch.report.setting_charts import plot_importance, plot_parallel
from kdsearch.report.svg import PALETTE, titles_id

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kdsearch.report.results import MemberRow, Results, TrialRow

__all__ = ["plot_frontier", "plot_history", "plot_importance", "plot_latency", "plot_parallel", "save_frontier"]

MAX_EPOCHS = 80
"""Most epochs per curve: the report of a large study has to stay small."""


def member_color(results: Results, trial_id: str) -> str:
    """The colour of a member of the frontier in all charts."""
    ids = [point.trial.id for point in results.points]
    return MEMBER_COLORS[ids.index(trial_id) % len(MEMBER_COLORS)]


# ---- the frontier ----------------------------------------------------------------------------------------------------


def plot_frontier(results: Results, ax: Axes | None = None) -> Axes:
    """mIoU against the main cost: complete trials, stopped ones at the mIoU that they had reached, the frontier.

    The steps show what each budget attains. The mean and the standard deviation of the repeats of a member stand at the
    same cost; a thin line leads to them from the mean of its controls, the same student alone. The mIoU of the teacher
    is a dotted line.
    """
    ax = ax or new_axes()
    cost = results.main_cost
    dots = [t for t in results.search if math.isfinite(t.miou) and math.isfinite(t.cost(cost))]
    dots = [t for t in dots if t.state in ("COMPLETE", "PRUNED")]
    if not dots:
        return empty(ax, "No trial has reported yet.")
    style(ax, METRICS[cost].axis, METRICS["miou"].axis)
    ids = {point.trial.id for point in results.points}
    for state, label, color, size in (("PRUNED", "stopped early", STOPPED, 9), ("COMPLETE", "complete", REST, 18)):
        group = [t for t in dots if t.state == state and t.id not in ids]
        _scatter(ax, group, cost, color=color, s=size, label=label, zorder=2)
    members = sorted(results.points, key=lambda point: point.trial.cost(cost))
    _scatter(ax, [m.trial for m in members], cost, color=FRONT, s=36, label="frontier", zorder=4)
    _cost_scale(ax, [t.cost(cost) for t in dots])
    _repeats(ax, members, cost)
    ax.margins(x=0.06, y=0.06)
    right = ax.get_xlim()[1]
    _steps(ax, [m.trial for m in members], cost, right)
    if results.teacher_miou is not None:
        ax.axhline(results.teacher_miou, color=PALETTE["teacher"], linestyle=":", linewidth=1)
        ax.annotate(
            f"teacher {results.teacher_miou:.3f}", (1, results.teacher_miou), xytext=(0, 3),
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", fontsize=LABEL,
            color=PALETTE["soft"],
        )  # fmt: skip
    ax.set_xlim(right=right)
    _member_labels(ax, [m.trial for m in members], cost)
    ax.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=5, frameon=False, fontsize=LABEL, handletextpad=0.2,
        columnspacing=1.2, labelcolor=PALETTE["soft"],
    )  # fmt: skip
    return ax


def save_frontier(results: Results, path: Path) -> None:
    """Write `plot_frontier` as a PNG file with the name of the space."""
    ax = new_axes()
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.subplots_adjust(top=0.86)
    plot_frontier(results, ax)
    ax.set_title(results.space, fontsize=FONT + 2, color=PALETTE["text"], pad=24)
    figure.savefig(path, format="png", dpi=130, facecolor="white")


def _scatter(ax: Axes, trials: Sequence[TrialRow], cost: str, label: str, **how: Any) -> None:
    if trials:
        dots = ax.scatter([t.cost(cost) for t in trials], [t.miou for t in trials], linewidths=0, label=label, **how)
        dots.set_gid(titles_id([t.id for t in trials]))


def _steps(ax: Axes, members: Sequence[TrialRow], cost: str, right: float) -> None:
    """The best mIoU per budget; with a third objective, some members are not the best at their cost."""
    steps = [t for i, t in enumerate(members) if all(t.miou > other.miou for other in members[:i])]
    if steps:
        x, y = [t.cost(cost) for t in steps], [t.miou for t in steps]
        ax.plot([*x, right], [*y, y[-1]], color=FRONT, linewidth=1.2, drawstyle="steps-post", zorder=3)


def _repeats(ax: Axes, members: Sequence[MemberRow], cost: str) -> None:
    repeated = [m for m in members if m.known("miou_mean") is not None]
    if not repeated:
        return
    x = [m.trial.cost(cost) for m in repeated]
    means = [m.confirmed["miou_mean"] for m in repeated]
    alone = [(at, m.known("control_miou_mean"), mean) for at, m, mean in zip(x, repeated, means, strict=True)]
    known = [(at, control, mean) for at, control, mean in alone if control is not None]
    if known:
        at, controls, ends = zip(*known, strict=True)
        ax.vlines(at, controls, ends, color=SEEDS, linewidth=0.7, linestyle=(0, (2, 2)), zorder=5)
        ax.scatter(
            at, controls, s=20, facecolors=PALETTE["back"], edgecolors=SEEDS, linewidths=0.9,
            label="same student alone: mean", zorder=6,
        )  # fmt: skip
    ax.errorbar(
        x, means, yerr=[m.known("miou_std") or 0.0 for m in repeated], fmt="D", markersize=4, markeredgewidth=0,
        elinewidth=1.3, color=SEEDS, label="repeats: mean ± std", zorder=6,
    )  # fmt: skip


def _cost_scale(ax: Axes, costs: Sequence[float]) -> None:
    """A logarithmic axis where the costs span more than a factor of three."""
    if min(costs) > 0 and max(costs) > 3 * min(costs):
        decades = math.log10(max(costs) / min(costs))
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1,) if decades > 3 else (1, 2, 5) if decades > 1 else (1, 2, 3, 5)))
        ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _member_labels(ax: Axes, members: Sequence[TrialRow], cost: str) -> None:
    """Ids above and to the left of the members, where no other lies; labels that would overlap move up."""
    inch = ax.figure.dpi / 72
    height = 1.3 * LABEL
    left = ax.transAxes.transform((0, 0))[0] / inch
    taken: list[tuple[float, float, float]] = []
    for trial in members:
        text = " ".join((trial.id, *trial.student.split()[:1]))
        width = 0.6 * LABEL * len(text)
        x, y = ax.transData.transform((trial.cost(cost), trial.miou)) / inch
        at_edge = x - 4 - width < left
        start = x + 5 if at_edge else x - 4 - width
        up = 4.0
        while any(start < end and first < start + width and abs(top - y - up) < height for first, end, top in taken):
            up += height
        taken.append((start, start + width, y + up))
        ax.annotate(
            text, (trial.cost(cost), trial.miou), xytext=(5 if at_edge else -4, up), textcoords="offset points",
            ha="left" if at_edge else "right", fontsize=LABEL, color=PALETTE["text"], zorder=7,
        )  # fmt: skip


# ---- learning curves and latency -------------------------------------------------------------------------------------


def plot_history(results: Results, ax: Axes | None = None) -> Axes:
    """mIoU by epoch of the trials of the search; those of the frontier in colour."""
    ax = ax or new_axes(right=0.5)
    ids = {point.trial.id for point in results.points}
    known = [t for t in results.search if any(math.isfinite(v) for v in t.curve.values())]
    if not known:
        return empty(ax, "This study's record has no mIoU by epoch.")
    style(ax, "epoch", METRICS["miou"].axis)
    others = [t for t in known if t.id not in ids][-MAX_LINES:]
    if others:
        lines = LineCollection([_thinned(t) for t in others], colors=STOPPED, linewidths=0.7, zorder=2)
        lines.set_gid(titles_id([t.id for t in others]))
        ax.add_collection(lines)
    ends = []
    for trial in (t for t in known if t.id in ids):
        points = _thinned(trial)
        (line,) = ax.plot(*zip(*points, strict=True), color=member_color(results, trial.id), linewidth=1.6, zorder=3)
        line.set_gid(titles_id([trial.id]))
        ends.append((points[-1][1], trial.id))
    single = [points[0] for t in others if len(points := _thinned(t)) == 1]
    if single:
        ax.scatter([epoch for epoch, _ in single], [miou for _, miou in single], s=6, color=STOPPED, zorder=2)
    ax.autoscale_view()
    ax.set_xlim(0, max(max(t.curve) for t in known))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _end_labels(ax, results, ends)
    return ax


def _thinned(trial: TrialRow) -> list[tuple[int, float]]:
    points = [(epoch, miou) for epoch, miou in sorted(trial.curve.items()) if math.isfinite(miou)]
    return [*points[: -1 : max(1, math.ceil(len(points) / MAX_EPOCHS))], points[-1]]


def _end_labels(ax: Axes, results: Results, ends: Sequence[tuple[float, str]]) -> None:
    """Ids of the members beside the ends of their curves; labels that would overlap move up."""
    gap, below = 1.4 * LABEL * ax.figure.dpi / 72, -math.inf
    for miou, trial_id in sorted(ends):
        below = max(ax.transData.transform((0, miou))[1], below + gap)
        at = ax.transAxes.inverted().transform((0, below))[1]
        ax.text(
            1.01, at, trial_id, transform=ax.transAxes, va="center", fontsize=LABEL,
            color=member_color(results, trial_id),
        )  # fmt: skip


def plot_latency(results: Results, ax: Axes | None = None) -> Axes:
    """Latency against FLOPs, one dot per student of the space."""
    ax = ax or new_axes(height=3.0)
    report = results.latency
    if report is None or not report.students:
        return empty(ax, "This study measured no latency.")
    style(ax, METRICS["gflops"].axis, METRICS["latency_ms"].axis)
    flops, latencies = [s.gflops for s in report.students], [s.latency_ms for s in report.students]
    dots = ax.scatter(flops, latencies, s=24, color=FRONT, linewidths=0)
    dots.set_gid(titles_id([f"{s.student}: {s.gflops:.3g} GFLOPs, {s.latency_ms:.3g} ms" for s in report.students]))
    _cost_scale(ax, flops)
    if min(latencies) > 0 and max(latencies) > 3 * min(latencies):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.margins(x=0.06, y=0.08)
    return ax
