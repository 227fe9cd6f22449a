"""The `kdsearch` command."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from kdsearch.errors import UserError
from kdsearch.secret import refuse_passwords


def main(argv: list[str] | None = None) -> int:
    from kdsearch import export as export_module
    from kdsearch import run as run_module
    from kdsearch.data import command as data_module
    from kdsearch.search.plan import command as plan_module

    parser = argparse.ArgumentParser(prog="kdsearch", description="Search for distilled segmentation networks.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser(
        "run", help="search a space: train, stop, keep the frontier", description=run_module.__doc__,
        epilog=run_module.EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    run_module.add_arguments(command)
    command.set_defaults(do=run_module.run)

    command = commands.add_parser(
        "plan", help="what a study would cost: hours, disk, memory; starts nothing", description=plan_module.__doc__
    )
    plan_module.add_arguments(command)

    command = commands.add_parser(
        "export", help="write a student of a finished study as safetensors, ONNX or pt2", epilog=export_module.EXAMPLES,
        description=export_module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    export_module.add_arguments(command)
    command.set_defaults(do=export_module.run)

    command = commands.add_parser("train", help="train one trial from its YAML file, in this process, without Ray")
    command.add_argument("trial", metavar="TRIAL.yaml", type=Path)
    command.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the trained student")
    command.add_argument("--storage", metavar="DIR", default="runs", help="folder of data stores and teachers")
    command.set_defaults(do=_train)

    command = commands.add_parser("data", help="check a data set, build its store", description=data_module.__doc__)
    data_module.add_commands(command.add_subparsers(metavar="ACTION", required=True))

    command = commands.add_parser("teacher", help="the teacher of a space: train it, evaluate it, cache its maps")
    actions = command.add_subparsers(metavar="ACTION", required=True)
    for name, help_text in (
        ("train", "train it and keep it under the storage, where studies of this space find it"),
        ("evaluate", "mIoU and IoU of each class on the validation split"),
        ("cache", "write the maps that the terms of the space read; their size, and what their format loses"),
    ):
        action = actions.add_parser(name, help=help_text, description=help_text)
        action.add_argument("space", metavar="SPACE", help="name of a search space or path of its YAML file")
        action.add_argument("--data", metavar="NAME=FOLDER", help="data set and where it lies")
        action.add_argument("--profile", metavar="P", help="a profile of the space")
        action.add_argument("--set", metavar="K=V", action="append", default=[], dest="overrides", help="set any leaf")
        action.add_argument("--storage", metavar="DIR", default="runs", help="folder of data stores and teachers")
        action.set_defaults(do=_teacher, action=name)

    command = commands.add_parser(
        "replay", help="the learning curves of a finished study as a table for simulated studies",
        description="Write the learning curves of a finished study as a table on which searches can be simulated "
        "(kdsearch.search.simulator), and say how well its trials predict each other. Trials that were stopped are "
        "left out: a table is best made from a study with search.stop=none.",
    )  # fmt: skip
    command.add_argument("run", metavar="RUN", type=Path, help="run folder of the study")
    command.add_argument("--out", metavar="FILE", type=Path, default="table.json", help="default: table.json")
    command.set_defaults(do=_replay)

    command = commands.add_parser(
        "report", help="make a study's report.html and frontier.html again, while it runs too",
        description="Make the pages of a study again, from its run folder or from the runs on a tracking server.",
        epilog=_REPORT_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    command.add_argument("run", metavar="RUN", help="run folder, or runs:/ID of the study's run on a tracking server")
    command.add_argument("--out", metavar="FILE", type=Path, help="write the report there (default: into the folder)")
    command.add_argument("--tracking-uri", metavar="URI", help="MLflow server or database that has runs:/ID")
    command.set_defaults(do=_report)

    command = commands.add_parser("spaces", help="the search spaces that come with kdsearch")
    actions = command.add_subparsers(metavar="ACTION", required=True)
    action = actions.add_parser("list", help="names, one line each")
    action.set_defaults(do=_list_spaces)
    action = actions.add_parser("show", help="a space with its profile laid over it")
    action.add_argument("space", metavar="SPACE")
    action.add_argument("--profile", metavar="P")
    action.set_defaults(do=_show_space)
    action = actions.add_parser("schema", help="JSON schema of the format, for editors")
    action.set_defaults(do=_schema)

    options = parser.parse_args(argv)
    try:
        refuse_passwords([*vars(options).values(), *getattr(options, "overrides", [])])
        status: int = options.do(options)
    except UserError as error:
        print(f"kdsearch: {error}", file=sys.stderr)
        return 2
    return status


def _train(options: argparse.Namespace) -> int:
    from kdsearch.compat import ensure_torchvision

    ensure_torchvision()
    from kdsearch.config.trial_file import load_trial
    from kdsearch.run_folder import RunFolder
    from kdsearch.train.alone import train_alone

    cache = RunFolder.at(options.storage, "alone")
    train_alone(load_trial(options.trial), cache, options.out, say=lambda line: print(line, flush=True))
    return 0


def _teacher(options: argparse.Namespace) -> int:
    from kdsearch.compat import ensure_torchvision

    ensure_torchvision()
    from kdsearch.requested import parse_data, requested_space
    from kdsearch.run_folder import RunFolder
    from kdsearch.train import teacher_tool

    def say(line: str) -> None:
        print(line, flush=True)

    space = requested_space(options.space, options.profile, options.overrides, parse_data(options.data))
    getattr(teacher_tool, f"{options.action}_teacher")(space, RunFolder.at(options.storage, "teacher"), say)
    return 0


def _replay(options: argparse.Namespace) -> int:
    from kdsearch.search.replay import replay

    replay(options.run, options.out, say=print)
    return 0


_REPORT_EXAMPLES = """examples:
  kdsearch report runs/clfd-20260101-120000
  kdsearch report runs/clfd-20260101-120000 --out report.html
  kdsearch report runs:/0123456789abcdef0123456789abcdef --tracking-uri http://mlflow:5000

exit status: 0 done, 2 there is no such study"""


def _report(options: argparse.Namespace) -> int:
    from kdsearch.compat import ensure_torchvision

    ensure_torchvision()
    from kdsearch.run_folder import RunFolder
    from kdsearch.tracking.pages import write_report, write_report_of_server

    if options.run.startswith("runs:/"):
        out = write_report_of_server(options.run, options.tracking_uri, options.out)
    elif options.tracking_uri:
        raise UserError("--tracking-uri goes with runs:/ID; a run folder needs none.")
    else:
        out = write_report(RunFolder(Path(options.run).expanduser().resolve()), options.out)
    print(out)
    return 0


def _list_spaces(options: argparse.Namespace) -> int:
    from kdsearch.config.shipped import shipped_spaces
    from kdsearch.config.space import load_space

    for name in shipped_spaces():
        print(f"{name:12} {load_space(name).description}")
    return 0


def _show_space(options: argparse.Namespace) -> int:
    from kdsearch.config.space import load_space

    print(load_space(options.space, profile=options.profile).to_yaml(), end="")
    return 0


def _schema(options: argparse.Namespace) -> int:
    from kdsearch.config.schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
