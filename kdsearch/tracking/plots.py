"""The frontier as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdsearch.search.record import Record


def frontier_png(
    path: Path, title: str, records: list[Record], members: list[Record], teacher_miou: float | None
) -> None:
    """mIoU against FLOPs: complete trials, stopped ones pale at the mIoU they had reached, the frontier as steps.

    The steps show what is attained: the best mIoU that a budget buys. The teacher's mIoU is a dotted line.
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
        axes.scatter([r.cost["gflops"] for r in group], [r.miou for r in group], s=22, color=color, label=label)
    gflops, mious = [r.cost["gflops"] for r in members], [r.miou for r in members]
    axes.plot(gflops, mious, "o-", color="#c2410c", drawstyle="steps-post", label="frontier")
    if teacher_miou is not None:
        axes.axhline(teacher_miou, color="#334155", linestyle=":", linewidth=1.2, label="teacher")
    for record in members:
        axes.annotate(
            f"{record.id} {record.config.student.arch}",
            (record.cost["gflops"], record.miou), textcoords="offset points", xytext=(5, -11), fontsize=7,
        )  # fmt: skip
    axes.set(xscale="log", xlabel="GFLOPs an image (2 x MAC)", ylabel="mIoU on val", title=title)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)
    axes.legend(loc="best", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, format="png")
    plt.close(figure)
