"""The report of `kdsearch data check` as tables for terminals."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdsearch.data.check.checks import Report, SplitReport

LISTED = 20
"""Problems that are printed; JSON contains all."""


def print_report(report: Report, console: Console | None = None) -> None:
    """Counts and sizes by split, frequencies by class, then one line per problem."""
    console = console or Console()
    console.print(_facts(report))
    console.print(_classes(report))
    for split, names in report.absent().items():
        if names:
            console.print(f"in no image of {split}: {', '.join(names)}", markup=False, highlight=False)
    for problem in report.problems[:LISTED]:
        line = f"{problem.split} {problem.key}: {problem.kind}: {problem.message}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(report.problems) > LISTED:
        console.print(f"... and {len(report.problems) - LISTED} more; --json lists all")
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{report.info.name}: {_verdict(report)}", markup=False, highlight=False, soft_wrap=True)


def _verdict(report: Report) -> str:
    if report.problems:
        total = sum(split.images for split in report.splits.values())
        return f"{len(report.problems)} of {total} samples cannot be used"
    if report.faults:
        return f"the set cannot be trained: {'; '.join(report.faults)}"
    return "every sample can be used; see the notes" if report.notes else "nothing wrong"


def _facts(report: Report) -> Table:
    table = _table("", report)
    table.add_row("images", *(str(split.images) for split in report.splits.values()))
    table.add_row("sizes (height x width)", *(_sizes(split) for split in report.splits.values()))
    for kind, counts in report.counts().items():
        table.add_row(kind, *(str(count) for count in counts.values()), style="red" if any(counts.values()) else None)
    return table


def _classes(report: Report) -> Table:
    table = _table("class: % of pixels (% of images)", report)
    for place, name in enumerate(report.info.classes):
        table.add_row(escape(name), *(_share(split, place) for split in report.splits.values()))
    without = (_percent(split.facts.ignored, split.pixels) for split in report.splits.values())
    table.add_row("no class", *without, style="dim")
    return table


def _table(first: str, report: Report) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(first)
    for name in report.splits:
        table.add_column(name, justify="right")
    return table


def _sizes(split: SplitReport) -> str:
    sizes = split.sizes.most_common()
    if len(sizes) <= 3:
        return ", ".join(f"{h}x{w}" + (f" ({count})" if len(sizes) > 1 else "") for (h, w), count in sizes) or "-"
    (low, high), (left, right) = ((min(sides), max(sides)) for sides in zip(*(size for size, _ in sizes), strict=True))
    return f"{len(sizes)} sizes, {low}..{high} x {left}..{right}"


def _share(split: SplitReport, place: int) -> str:
    pixels = _percent(int(split.facts.class_pixels[place]), int(split.facts.class_pixels.sum()))
    return f"{pixels} ({_percent(int(split.class_images[place]), split.facts.images, 0)})"


def _percent(part: int, whole: int, digits: int = 2) -> str:
    return f"{100 * part / whole:.{digits}f}" if whole else "-"
