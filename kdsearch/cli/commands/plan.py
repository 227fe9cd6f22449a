"""What a study would cost, from a few measured steps. Nothing is started or kept: no Ray, no run folder."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from kdsearch.cli.exit_status import DONE, FAILED
from kdsearch.cli.output import CommandOutput
from kdsearch.cli.parser import Commands, add_command, add_json, add_space, add_storage, positive

ABOUT = """\
A few steps of the default, the cheapest and the dearest trials are timed; nothing is started or kept: no Ray, no run
folder. The options that 'kdsearch run' has too mean the same.
"""
LIMIT_S = 120.0
TOTAL_S = 300.0


def add_to(commands: Commands) -> None:
    command = add_command(
        commands, "plan", run, help="say what a study would cost: hours, disk, memory", about=ABOUT,
        examples=["plan clfd", "plan clfd --data mfnet=/data/MFNet --trials 50 --slots 8", "plan clfd --json"],
        failed="nothing could be measured",
    )  # fmt: skip
    add_space(command, "the demo profile is planned")
    add = command.add_argument
    add("--trials", metavar="N", type=positive, help="number of trials (default: what the space says)")
    add("--latency", metavar="DEVICE", help="mIoU against latency, measured on cpu, cpu:4 or cuda")
    add("--workers-per-trial", metavar="N", type=positive, default=1, help="DDP ranks of each trial (default: 1)")
    add("--gpus-per-worker", metavar="F", type=float, help="share of a GPU for each rank")
    add("--slots", metavar="N", type=positive, help="trials at a time (default: what this machine holds)")
    add("--no-confirm", action="store_true", help="without repeats and controls of the frontier")
    add_storage(command, "folder of all runs, whose disk is looked at (default: runs)")
    add("--seconds", metavar="S", type=float, default=TOTAL_S, help="time for measuring (default: %(default).0f)")
    add("--limit", metavar="S", type=float, default=LIMIT_S, help="time for one trial's (default: %(default).0f)")
    add_json(command, "the fields of kdsearch.planning.plan.Plan; times in seconds")


def run(options: argparse.Namespace) -> CommandOutput:
    from kdsearch.compat import ensure_torchvision

    ensure_torchvision()
    from rich.console import Console

    from kdsearch.cli.space_options import parse_data, requested_space
    from kdsearch.planning.plan import Wishes, make_plan
    from kdsearch.planning.tables import print_plan

    errors = Console(stderr=True, highlight=False)
    trials = [] if options.trials is None else [f"search.trials={options.trials}"]
    space = requested_space(
        options.space, options.profile, [*options.overrides, *trials], parse_data(options.data),
        say=lambda line: errors.print(line, markup=False), latency=options.latency,
    )  # fmt: skip
    wishes = Wishes(
        options.workers_per_trial, options.gpus_per_worker, options.slots, not options.no_confirm,
        Path(options.storage), options.seconds, options.limit,
    )  # fmt: skip
    with errors.status("measuring") as status:
        plan = make_plan(space, wishes, lambda text: status.update(f"measuring {text}"))
    return CommandOutput(asdict(plan), lambda: print_plan(plan), status=DONE if plan.stages else FAILED)
