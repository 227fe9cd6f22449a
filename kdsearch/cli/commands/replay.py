"""`kdsearch replay`: a table of learning curves, on which searches can be simulated."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdsearch.cli import completion as complete
from kdsearch.cli.output import CommandOutput
from kdsearch.cli.parser import Commands, add_command, add_json

ABOUT = """\
The simulator (kdsearch.search.simulation.backend) runs searches on such a table. The command prints how well the trials
predict each other. Stopped trials are left out, so a study with search.stop=none gives the best table.
"""


def add_to(commands: Commands) -> None:
    command = add_command(
        commands, "replay", _replay, help="write a study's learning curves as a table for simulations", about=ABOUT,
        examples=["replay runs/clfd-1 --out table.json"],
    )  # fmt: skip
    complete.by(command.add_argument("run", metavar="RUN", type=Path, help="run folder of the study"), complete.runs)
    command.add_argument(
        "--out", metavar="FILE", type=Path, default="table.json", help="file to write (default: table.json)"
    )
    add_json(command, "table, curves, epochs, left_out, error, spread, rank_correlation")


def _replay(options: argparse.Namespace) -> CommandOutput:
    from kdsearch.search.simulation.export import export_table

    return CommandOutput(export_table(options.run, options.out, report=print))
