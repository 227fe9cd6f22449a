"""`kdsearch export RUN`, or `python -m kdsearch.export RUN`: write a student as a self-contained bundle."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdsearch.cli import completion as complete
from kdsearch.cli.exit_status import FAILED
from kdsearch.cli.output import CommandOutput
from kdsearch.cli.parser import Commands, add_command, add_json

ABOUT = """\
The student is the most accurate member of the frontier, or the best compromise, within a budget. Every format is loaded
again and compared with PyTorch on validation images; where one differs, nothing is written.

'kdsearch.load_student(DIR)' loads the bundle.

'python -m kdsearch.export' is the same command.
"""


def add_to(commands: Commands) -> None:
    command = add_command(
        commands, "export", run, help="write a student as safetensors, ONNX or pt2", about=ABOUT,
        examples=[
            "export runs/clfd-1 --best knee --out student",
            "export runs/clfd-1 --budget 'gflops<=5' --formats onnx,pt2 --out s",
            "export student --formats onnx --out student-onnx",
            "export models:/clfd-1@knee --tracking-uri http://mlflow:5000 --out s",
        ],
        failed="a format differs from the student",
    )  # fmt: skip
    add = command.add_argument
    run_help = "folder of a study or of one student; runs:/ID, models:/NAME@ALIAS or models:/NAME/VERSION in MLflow"
    complete.by(add("run", metavar="RUN", help=run_help), complete.runs)
    add("--out", metavar="DIR", type=Path, required=True, help="folder to write")
    add("--best", choices=("miou", "knee"), help="most accurate or best compromise (default: miou)")
    add("--budget", metavar="METRIC<=X", help="only points within it, for example 'gflops<=5'")
    add(
        "--formats", metavar="LIST", default="safetensors",
        help="comma-separated: safetensors, onnx, pt2 (default: safetensors)",
    )  # fmt: skip
    add("--tracking-uri", metavar="URI", help="MLflow server or database of runs:/ and models:/")
    add_json(command, "bundle, study, trial, chosen, formats, latency_ms")


def run(options: argparse.Namespace) -> CommandOutput:
    """Write a bundle."""
    from kdsearch.compat import ensure_torchvision

    ensure_torchvision()
    from kdsearch.export.bundle import MismatchError, export

    formats = tuple(options.formats.split(","))
    try:
        written = export(options.run, options.out, options.best, options.budget, formats, options.tracking_uri)
    except MismatchError as error:
        print(f"kdsearch: {error}", file=sys.stderr)
        return CommandOutput({"bundle": None, "problem": str(error)}, status=FAILED)
    return CommandOutput(written, lambda: print(f"wrote {options.out}"))
