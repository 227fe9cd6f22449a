"""`kdsearch runs`: the runs under a storage."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from kdsearch.cli.output import CommandOutput, print_columns
from kdsearch.cli.parser import Commands, add_command, add_json, add_storage

if TYPE_CHECKING:
    from kdsearch.search.storage.listing import Run

ABOUT = """\
Newest first. A study is running as long as its driver lives. One whose driver was killed is interrupted;
'kdsearch run SPACE --resume --name RUN' continues it. TRIALS are finished and requested trials of the search.
"""
HEADER = ("RUN", "SPACE", "STATUS", "TRIALS", "POINTS", "MIOU", "VOLUME", "AGE")
FIELDS = (
    "a list of name, path, status, space, trials, asked, frontier, best_miou, hypervolume, started, updated, problem"
)


def add_to(commands: Commands) -> None:
    command = add_command(
        commands, "runs", _runs, help="list runs: status, trials, frontier, best mIoU", about=ABOUT,
        examples=["runs", "runs --storage /shared/runs", """runs --json | jq '.[] | select(.status=="done")'"""],
    )  # fmt: skip
    add_storage(command, "folder of the runs (default: runs)")
    add_json(command, FIELDS)


def _runs(options: argparse.Namespace) -> CommandOutput:
    from dataclasses import asdict

    from kdsearch.search.storage.listing import list_runs

    runs = list_runs(options.storage)
    return CommandOutput([asdict(run) for run in runs], lambda: _show(runs))


def _show(runs: list[Run]) -> None:
    print_columns(HEADER, [_row(run) for run in runs], right=HEADER[3:])
    sys.stdout.flush()
    for run in runs:
        if run.problem:
            print(f"kdsearch: {ascii(run.name)[1:-1]} is damaged: {ascii(run.problem)[1:-1]}", file=sys.stderr)


def _row(run: Run) -> list[str]:
    asked = "" if run.asked is None else f"/{run.asked}"
    return [
        run.name,
        run.space or "-",
        run.status,
        "-" if run.trials is None else f"{run.trials}{asked}",
        "-" if run.frontier is None else str(run.frontier),
        "-" if run.best_miou is None else f"{run.best_miou:.3f}",
        "-" if run.hypervolume is None else f"{run.hypervolume:.3g}",
        "-" if run.started is None else _age(time.time() - run.started),
    ]


def _age(seconds: float) -> str:
    for limit, unit, length in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{max(0.0, seconds) / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
