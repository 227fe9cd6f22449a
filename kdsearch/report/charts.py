"""The report's charts as SVG, and the colours of its class table. Everything is drawn to be printed too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdsearch.report.results import Results, TrialRow
from kdsearch.search.latency.report import AXIS, LatencyReport

MAX_CURVES = 250
MAX_EPOCHS = 80
"""Curves beyond these are thinned out, so that the report of a large study stays small."""

MEMBER_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#7f3c8d", "#666666")
"""After Okabe and Ito: told apart with any colour vision, on white and on dark."""


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic axis: `scale(value)` in pixels, and its ticks."""

    first: float
    last: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, pad: float, log: bool = False) -> Scale:
        """An axis that shows all `values`, with a share of `pad` beyond them on both sides."""
        change: Callable[[float], float] = math.log10 if log else float
        first, last = change(min(values)), change(max(values))
        if first == last:
            room = 0.1 if log else abs(first) * 0.1 or 1.0
            first, last = first - room, last + room
        room = (last - first) * pad
        return cls(first - room, last + room, start, end, log)

    def __call__(self, value: float) -> float:
        at = math.log10(value) if self.log else value
        return round(self.start + (at - self.first) / (self.last - self.first) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        if self.log and self.last - self.first > 0.5:
            steps = (1, 2, 5) if self.last - self.first < 3 else (1,)
            powers = range(math.floor(self.first), math.floor(self.last) + 1)
            found = [step * 10.0**power for power in powers for step in steps]
            return [tick for tick in found if self.first <= math.log10(tick) <= self.last]
        low, high = (10**self.first, 10**self.last) if self.log else (self.first, self.last)
        base = 10.0 ** math.floor(math.log10((high - low) / 5))
        step = next(m * base for m in (1, 2, 5, 10) if m * base >= (high - low) / 5)
        return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def member_color(results: Results, trial_id: str) -> str:
    """The colour of a frontier member in all charts."""
    ids = [point.trial.id for point in results.points]
    return MEMBER_COLORS[ids.index(trial_id) % len(MEMBER_COLORS)]


def frontier(results: Results) -> Markup:
    """mIoU against the main cost, with means and spreads of repeats and the means of controls."""
    cost = results.main_cost
    members = sorted(results.points, key=lambda point: point.trial.cost(cost))
    ids = {point.trial.id for point in members}
    dots = [t for t in results.search if t.state in ("COMPLETE", "PRUNED") and _drawable(t, cost)]
    if not dots:
        return Markup("<p>No trial has reported yet.</p>")
    heights = [t.miou for t in dots]
    for point in members:
        mean, std, alone = (point.known(name) for name in ("miou_mean", "miou_std", "control_miou_mean"))
        heights += [mean - (std or 0), mean + (std or 0)] if mean is not None else []
        heights += [alone] if alone is not None else []
    if results.teacher_miou is not None:
        heights.append(results.teacher_miou)
    costs = [t.cost(cost) for t in dots]
    x = Scale.over(costs, 54, 700, 0.06, min(costs) > 0 and max(costs) > 3 * min(costs))
    y = Scale.over(heights, 350, 24, 0.05)
    parts = [_axes(x, y, AXIS[cost], "mIoU on val")]
    if results.teacher_miou is not None:
        at = y(results.teacher_miou)
        parts.append(
            Markup(
                '<line x1="54" x2="700" y1="{0}" y2="{0}" stroke="var(--teacher)" stroke-dasharray="2 4"/>'
                '<text x="700" y="{1}" text-anchor="end">teacher {2:.3f}</text>'
            ).format(at, round(at - 5, 1), results.teacher_miou)
        )
    for trial in sorted(dots, key=lambda t: t.state == "COMPLETE"):
        if trial.id not in ids:
            color, radius = ("var(--rest)", 3.4) if trial.state == "COMPLETE" else ("var(--stopped)", 2.2)
            parts.append(_dot(x(trial.cost(cost)), y(trial.miou), radius, color, trial.id))
    if members:
        path = f"M{x(members[0].trial.cost(cost))} {y(members[0].trial.miou)}"
        best = members[0].trial.miou
        for member in members[1:]:
            # With a third objective, some members are not the best that this cost buys.
            if member.trial.miou > best:
                best = member.trial.miou
                path += f"H{x(member.trial.cost(cost))}V{y(best)}"
        path += "H700"
        parts.append(Markup('<path d="{}" fill="none" stroke="var(--front)" stroke-width="1.5"/>').format(path))
    taken: list[tuple[float, float]] = []
    for point in members:
        at = x(point.trial.cost(cost))
        up = y(point.trial.miou) - 7
        while any(abs(left - at) < 40 and abs(top - up) < 12 for left, top in taken):
            up -= 12  # labels that would cover each other go further up: there lies no other point
        taken.append((at, up))
        parts.append(_dot(at, y(point.trial.miou), 5, "var(--front)", point.trial.id))
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="{}" class="name">{}</text>').format(
                at - 6, round(up, 1), "start" if at < 100 else "end", point.trial.id
            )
        )
        mean, std, alone = (point.known(name) for name in ("miou_mean", "miou_std", "control_miou_mean"))
        if mean is None:
            continue
        if alone is not None:
            parts.append(_stem(at, y(alone), y(mean), 'stroke-width="0.8" stroke-dasharray="2 2"'))
            parts.append(
                Markup('<circle cx="{}" cy="{}" r="3.5" fill="var(--back)" stroke="var(--seeds)"/>').format(
                    at, y(alone)
                )
            )
        if std is not None:
            parts.append(_stem(at, y(mean - std), y(mean + std), 'stroke-width="1.6"'))
        diamond = f"M{at} {y(mean) - 4.5}l4.5 4.5l-4.5 4.5l-4.5 -4.5z"
        parts.append(Markup('<path d="{}" fill="var(--seeds)"/>').format(diamond))
    return _svg(720, 390, parts)


def latency(report: LatencyReport) -> Markup:
    """Latency against FLOPs, a dot for each student of the space."""
    x_values, y_values = [s.gflops for s in report.students], [s.latency_ms for s in report.students]
    x = Scale.over(x_values, 54, 700, 0.06, min(x_values) > 0 and max(x_values) > 3 * min(x_values))
    y = Scale.over(y_values, 250, 24, 0.08, max(y_values) > 3 * min(y_values))
    parts = [_axes(x, y, AXIS["gflops"], "latency, ms", bottom=250)]
    for each in report.students:
        title = f"{each.student}: {each.gflops:.3g} GFLOPs, {each.latency_ms:.3g} ms"
        parts.append(_dot(x(each.gflops), y(each.latency_ms), 4, "var(--front)", title))
    return _svg(720, 290, parts)


def curves(results: Results) -> Markup:
    """mIoU by epoch of every trial of the search; the frontier's in colour."""
    ids = {point.trial.id for point in results.points}
    with_curve = [t for t in results.search if any(math.isfinite(v) for v in t.curve.values())]
    if not with_curve:
        return Markup("<p>This study's record has no mIoU by epoch.</p>")
    members = [t for t in with_curve if t.id in ids]
    others = [t for t in with_curve if t.id not in ids][-MAX_CURVES:]
    drawn = [*others, *members]
    last = max(max(t.curve) for t in drawn)
    values = [v for t in drawn for v in t.curve.values() if math.isfinite(v)]
    x, y = Scale.over([0, last], 54, 640, 0), Scale.over(values, 300, 24, 0.04)
    parts = [_axes(x, y, "epoch", "mIoU on val", bottom=300, right=640)]
    labels: list[tuple[float, TrialRow]] = []
    for trial in drawn:
        epochs = [e for e in sorted(trial.curve) if math.isfinite(trial.curve[e])]
        step = max(1, math.ceil(len(epochs) / MAX_EPOCHS))
        kept = [*epochs[:-1:step], epochs[-1]]
        path = "M" + "L".join(f"{x(e)} {y(trial.curve[e])}" for e in kept)
        member = trial.id in ids
        color = member_color(results, trial.id) if member else "var(--stopped)"
        if len(kept) == 1:
            parts.append(_dot(x(kept[0]), y(trial.curve[kept[0]]), 2, color, trial.id))
        parts.append(
            Markup('<path d="{}" fill="none" stroke="{}" stroke-width="{}"><title>{}</title></path>').format(
                path, color, 2 if member else 0.8, trial.id
            )
        )
        if member:
            labels.append((y(trial.curve[kept[-1]]), trial))
    below = -math.inf
    for at, trial in sorted(labels, key=lambda label: label[0]):
        below = max(at + 4, below + 12)  # labels that would lie on each other move down
        parts.append(
            Markup('<text x="646" y="{}" style="fill:{}">{}</text>').format(
                round(below, 1), member_color(results, trial.id), trial.id
            )
        )
    return _svg(720, 340, parts)


def gain_style(gain: float, largest: float) -> Markup:
    """Background of a cell: orange below zero, blue above, white at zero; told apart with any colour vision."""
    share = min(1.0, abs(gain) / largest) if largest > 0 else 0.0
    end = (5, 113, 176) if gain >= 0 else (230, 97, 1)
    red, green, blue = (round(255 + share * 0.75 * (channel - 255)) for channel in end)
    return Markup("background:rgb({},{},{})").format(red, green, blue)


def _drawable(trial: TrialRow, cost: str) -> bool:
    return math.isfinite(trial.miou) and math.isfinite(trial.cost(cost))


def _svg(width: int, height: int, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img">{}</svg>').format(width, height, Markup("").join(parts))


def _dot(x: float, y: float, radius: float, color: str, title: str) -> Markup:
    return Markup('<circle cx="{}" cy="{}" r="{}" fill="{}"><title>{}</title></circle>').format(
        x, y, radius, color, title
    )


def _stem(x: float, y1: float, y2: float, style: str) -> Markup:
    return Markup('<line x1="{0}" x2="{0}" y1="{1}" y2="{2}" stroke="var(--seeds)" {3}/>').format(
        x, y1, y2, Markup(style)
    )


def _axes(x: Scale, y: Scale, x_title: str, y_title: str, bottom: int = 350, right: int = 700) -> Markup:
    parts = [
        Markup(
            '<line x1="54" x2="{0}" y1="{1}" y2="{1}" class="axis"/><text x="48" y="{2}" text-anchor="end">{3:g}</text>'
        ).format(right, y(tick), y(tick) + 4, tick)
        for tick in y.ticks()
    ]
    parts += [
        Markup(
            '<line x1="{0}" x2="{0}" y1="{1}" y2="{2}" class="axis"/>'
            '<text x="{0}" y="{3}" text-anchor="middle">{4:g}</text>'
        ).format(x(tick), bottom, bottom + 4, bottom + 16, tick)
        for tick in x.ticks()
    ]
    parts.append(
        Markup(
            '<line x1="54" x2="{0}" y1="{1}" y2="{1}" class="axis"/>'
            '<text x="{2}" y="{3}" text-anchor="middle">{4}</text>'
            '<text x="8" y="14">{5}</text>'
        ).format(right, bottom, (54 + right) / 2, bottom + 32, x_title, y_title)
    )
    return Markup("").join(parts)
