"""`kdsearch train`: one trial without a study."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdsearch.cli.output import CommandOutput
from kdsearch.cli.parser import Commands, add_command, add_json, add_storage


def add_to(commands: Commands) -> None:
    command = add_command(
        commands, "train", _train, help="train one trial from its YAML file",
        about="It runs in this process, without Ray; the teacher is trained first, unless the storage has it. "
        "Every exported student has such a file.",
        examples=["train trial.yaml --out student", "train student/trial.yaml --out again"],
    )  # fmt: skip
    command.add_argument("trial", metavar="FILE", type=Path, help="YAML file of the trial: a space without ranges")
    command.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the trained student")
    add_storage(command, "folder of data stores and teachers (default: runs)")
    add_json(command, "student, metrics")


def _train(options: argparse.Namespace) -> CommandOutput:
    from kdsearch.compat import ensure_torchvision

    ensure_torchvision()
    from kdsearch.api.functions import train
    from kdsearch.models.student import read_metrics

    train(options.trial, out=options.out, storage=options.storage, log=lambda line: print(line, flush=True))
    return CommandOutput({"student": str(options.out), "metrics": read_metrics(options.out)})
