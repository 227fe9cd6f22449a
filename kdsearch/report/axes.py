"""Axes of the static charts: their size, style and colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kdsearch.report.svg import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LINES = 250
"""Most lines of trials off the frontier in one chart: the report of a large study has to stay small."""
MEMBER_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#7f3c8d", "#666666")
"""After Okabe and Ito: distinct with any colour vision, on white and on dark."""
FRONT, REST, STOPPED, SEEDS = (PALETTE[name] for name in ("front", "rest", "stopped", "seeds"))
FONT, LABEL = 8, 7
"""Points of titles and ticks, and of labels inside a chart."""


def new_axes(width: float = 7.2, height: float = 4.0, left: float = 0.6, right: float = 0.2) -> Axes:
    """Axes in a figure of their own; the size of the figure, and the margins beside the axes, in inches."""
    figure = Figure(figsize=(width, height), facecolor="none")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left / width, 0.45 / height, 1 - right / width, 1 - 0.3 / height)
    return figure.add_subplot()


def style(ax: Axes, x_title: str, y_title: str) -> None:
    """Titles, one line at the bottom, and a quiet grid."""
    ax.set_facecolor("none")
    ax.set_axisbelow(True)
    ax.grid(axis="y", color=PALETTE["line"], linewidth=0.7)
    ax.spines[["top", "left", "right"]].set_visible(False)
    ax.spines["bottom"].set_color(PALETTE["line"])
    ax.tick_params(colors=PALETTE["soft"], labelsize=FONT, which="both", length=3)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(x_title, fontsize=FONT, color=PALETTE["soft"])
    ax.set_ylabel(y_title, fontsize=FONT, color=PALETTE["soft"])


def empty(ax: Axes, sentence: str) -> Axes:
    """Axes with one sentence and nothing else."""
    ax.text(0.5, 0.5, sentence, ha="center", va="center", fontsize=FONT, color=PALETTE["soft"], transform=ax.transAxes)
    ax.set_axis_off()
    return ax
