"""A plan as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdsearch.planning.estimate import FRONTIER
from kdsearch.planning.result import Plan, PlanRow
from kdsearch.planning.units import duration, size, two_digits
from kdsearch.tracking.console import PLAIN_WIDTH


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Print trials, stages, disk usage, warnings and notes."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    height, width = plan.crop
    seen = f", trained on {height}x{width}" if plan.crop != plan.size else ""
    console.print(
        f"[bold]{escape(plan.space)}[/] on {plan.data}: {plan.images['train']} training and {plan.images['val']} "
        f"validation images of {plan.size[0]}x{plan.size[1]}{seen}"
    )
    each = f", {plan.ranks} ranks each" if plan.ranks > 1 else ""
    console.print(f"measured here: {escape(plan.machine)}; {plan.trials} trials, {plan.slots} at a time{each}\n")
    console.print(_trials(plan.rows))
    console.print()
    if plan.stages:
        console.print(_stages(plan))
        console.print()
    console.print(_disk(plan))
    console.print()
    for line in plan.warnings:
        console.print(f"[yellow]! {escape(line)}[/]")
    for line in plan.notes:
        console.print(f"[dim]{escape(line)}[/]")


def _trials(rows: Sequence[PlanRow]) -> Table:
    table = _table("trial")
    table.add_column("student", no_wrap=True)
    for name in ("GFLOPs", "batch", "step", "student", "teacher", "terms", "validation", "full training", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        start = [escape(row.name), escape(row.student), f"{row.gflops:.2f}", str(row.batch)]
        if row.problem:
            table.add_row(*start, "[yellow]-[/]")
            continue
        shares = [_percent(row.shares[name]) for name in ("student", "teacher", "terms")]
        table.add_row(
            *start, duration(row.step_s), *shares, _percent(row.val_share), duration(row.full_s),
            size(1e9 * sum(row.memory_gb.values())),
        )  # fmt: skip
    table.caption = "shares of a step; validation: share of an epoch; memory: an estimate per rank"
    table.caption_justify = "left"
    return table


def _stages(plan: Plan) -> Table:
    table = _table("stage")
    for name in ("trainings", "GPU-hours" if plan.total["gpu_s"] else "slot-hours", "wall time", "remark"):
        table.add_column(name, justify="left" if name == "remark" else "right", no_wrap=name != "remark")
    scale = plan.gpus_per_slot if plan.total["gpu_s"] else 1.0
    remarks = {
        "search": "from: as many stopped at every rung as allowed; to: none stopped",
        "confirm": f"repeats and controls of a frontier of {FRONTIER} points",
    }
    lines = list(plan.stages)
    for stage in lines:
        table.add_row(
            stage["name"], str(stage["trainings"]), _hours(stage["slot_s"], scale), _range(stage["wall_s"]),
            remarks.get(stage["name"], ""),
        )  # fmt: skip
    if len(lines) > 1:
        total = plan.total
        share = f"confirm is {_percent(total['confirm_share'])} of it" if total["confirm_share"] else ""
        table.add_row("total", "", _hours(total["slot_s"], scale), _range(total["wall_s"]), share, style="bold")
    if plan.cached is not None:
        table.add_row(
            plan.cached["name"], str(plan.cached["trainings"]), _hours(plan.cached["slot_s"], scale),
            _range(plan.cached["wall_s"]),
            f"teacher.cache=auto: the teacher is {_percent(plan.teacher_share)} of the search's steps", style="dim",
        )  # fmt: skip
    return table


def _disk(plan: Plan) -> Table:
    table = _table("disk")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("remark")
    for name, count in plan.disk.items():
        table.add_row(name, size(count), escape(plan.disk_notes.get(name, "")))
    return table


def _table(first: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column(first, no_wrap=True)
    return table


def _range(ends: Sequence[float]) -> str:
    low, high = (duration(end) for end in ends)
    return low if low == high else f"{low} to {high}"


def _hours(ends: Sequence[float], scale: float) -> str:
    low, high = (two_digits(end * scale / 3600) for end in ends)
    return low if low == high else f"{low} to {high}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
