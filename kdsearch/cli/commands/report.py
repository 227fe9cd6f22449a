"""`kdsearch report`: write the pages of a study again."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdsearch.cli import completion as complete
from kdsearch.cli.output import CommandOutput
from kdsearch.cli.parser import Commands, add_command, add_json
from kdsearch.errors import UserError


def add_to(commands: Commands) -> None:
    command = add_command(
        commands, "report", _report, help="write report.html and frontier.html of a study again",
        about="The source is the run folder, also of a running study, or the runs on a tracking server.",
        examples=[
            "report runs/clfd-1",
            "report runs/clfd-1 --out report.html",
            "report runs:/ID --tracking-uri http://mlflow:5000",
        ],
    )  # fmt: skip
    run = "run folder, or runs:/ID of the study's run on a tracking server"
    complete.by(command.add_argument("run", metavar="RUN", help=run), complete.runs)
    command.add_argument("--out", metavar="FILE", type=Path, help="write the report there (default: into the folder)")
    command.add_argument("--tracking-uri", metavar="URI", help="MLflow server or database that has runs:/ID")
    add_json(command, "report")


def _report(options: argparse.Namespace) -> CommandOutput:
    from kdsearch.compat import ensure_torchvision

    ensure_torchvision()
    from kdsearch.io.run_folder import RunFolder
    from kdsearch.io.targets import check_target
    from kdsearch.report.pages import write_report, write_report_of_server

    if options.out is not None:
        check_target("--out", options.out)
    if options.run.startswith("runs:/"):
        out = write_report_of_server(options.run, options.tracking_uri, options.out)
    elif options.tracking_uri:
        raise UserError("--tracking-uri goes with runs:/ID; leave it out for a run folder.")
    else:
        out = write_report(RunFolder(Path(options.run).expanduser().resolve()), options.out)
    return CommandOutput({"report": str(out)}, lambda: print(out))
