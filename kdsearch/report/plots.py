"""The frontier as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.search.latency.report import AXIS

if TYPE_CHECKING:
    from kdsearch.search.confirm import Confirmation
    from kdsearch.search.storage.study_storage import TrialRecord


def frontier_png(
    path: Path, title: str, records: list[TrialRecord], members: list[TrialRecord], confirmed: Mapping[str, Confirmation],
    teacher_miou: float | None, cost: str = "gflops",
) -> None:  # fmt: skip
    """mIoU against `cost`: complete trials, stopped ones pale at the mIoU they had reached, the frontier as steps.

    The steps show what is attained: the best mIoU that a budget buys. The teacher's mIoU is a dotted line. Where a
    member was repeated, its mean and standard deviation over seeds stand at the same cost, and a thin line leads from
    the mean of its controls, the same student alone, up (or down) to it.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure, axes = plt.subplots(figsize=(7, 4.5), dpi=120)
    on_frontier = {record.id for record in members}
    groups = {
        "stopped early": ("#c9ced6", [r for r in records if r.stage == "search" and r.state == "PRUNED"]),
        "complete": (
            "#6b7a90",
            [r for r in records if r.stage == "search" and r.state == "COMPLETE" and r.id not in on_frontier],
        ),
    }
    for label, (color, group) in groups.items():
        group = [record for record in group if record.miou == record.miou]
        axes.scatter(
            [r.cost.get(cost, math.nan) for r in group], [r.miou for r in group], s=22, color=color, label=label
        )
    axes.scatter([r.cost[cost] for r in members], [r.miou for r in members], color="#c2410c", zorder=3)
    # With a third objective, some members are not the best that this cost buys.
    steps = [r for i, r in enumerate(members) if all(r.miou > other.miou for other in members[:i])]
    axes.plot(
        [r.cost[cost] for r in steps], [r.miou for r in steps], "o-", color="#c2410c", drawstyle="steps-post",
        label="frontier",
    )  # fmt: skip
    repeated = [(record.cost[cost], confirmed[record.id]) for record in members if confirmed[record.id].seeds]
    if repeated:
        x, means = [at for at, _ in repeated], [c.miou_mean for _, c in repeated]
        alone = [c.control_miou_mean for _, c in repeated]
        axes.vlines(x, alone, means, color="#1d4ed8", linewidth=0.8, zorder=3)
        axes.errorbar(
            x, means, yerr=[c.miou_std for _, c in repeated], fmt="D", markersize=5, capsize=4, elinewidth=1.6,
            color="#1d4ed8", label="repeats: mean ± std", zorder=4,
        )  # fmt: skip
        axes.scatter(
            x, alone, s=34, facecolors="white", edgecolors="#1d4ed8", label="same student alone: mean", zorder=4
        )
    if teacher_miou is not None:
        axes.axhline(teacher_miou, color="#334155", linestyle=":", linewidth=1.2, label="teacher")
    for record in members:
        # Above and left of a frontier point lies no other point.
        axes.annotate(
            f"{record.id} {record.config.student.arch}",
            (record.cost[cost], record.miou), textcoords="offset points", xytext=(-4, 4), ha="right", fontsize=7,
        )  # fmt: skip
    axes.set(xscale="log", xlabel=AXIS[cost], ylabel="mIoU on val", title=title)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.18)
    axes.grid(alpha=0.25)
    axes.legend(loc="best", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, format="png")
    plt.close(figure)
