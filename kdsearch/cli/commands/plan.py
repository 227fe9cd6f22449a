"""`kdsearch plan`: the cost of a study, from a few measured steps."""

from __future__ import annotations

import argparse

from kdsearch.cli.exit_status import DONE, FAILED
from kdsearch.cli.output import CommandOutput
from kdsearch.cli.parser import Commands, add_command, add_json, add_space, add_storage, positive

ABOUT = """\
Times a few steps of the default, the least and the most expensive trials on this machine. No Ray is started and no run
folder is written. Options of 'kdsearch run' have the same meaning here.
"""
LIMIT_S = 120.0
TOTAL_S = 300.0


def add_to(commands: Commands) -> None:
    command = add_command(
        commands, "plan", run, help="estimate the cost of a study: hours, disk, memory", about=ABOUT,
        examples=["plan clfd", "plan clfd --data mfnet=/data/MFNet --trials 50 --slots 8", "plan clfd --json"],
        failed="nothing could be measured",
    )  # fmt: skip
    add_space(command, "the demo profile is planned")
    add = command.add_argument
    add("--trials", metavar="N", type=positive, help="number of trials (default: that of the space)")
    add("--latency", metavar="DEVICE", help="mIoU against latency, measured on cpu, cpu:4 or cuda")
    add("--workers-per-trial", metavar="N", type=positive, default=1, help="DDP ranks of each trial (default: 1)")
    add("--gpus-per-worker", metavar="F", type=float, help="share of a GPU for each rank")
    add("--slots", metavar="N", type=positive, help="concurrent trials (default: as many as this machine holds)")
    add("--no-confirm", action="store_true", help="without repeats and controls of the frontier")
    add_storage(command, "folder of all runs, for its free disk (default: runs)")
    add(
        "--seconds",
        metavar="S",
        type=float,
        default=TOTAL_S,
        help="time limit of all measurements (default: %(default).0f)",
    )
    add("--limit", metavar="S", type=float, default=LIMIT_S, help="time limit per trial (default: %(default).0f)")
    add_json(command, "the fields of kdsearch.planning.result.Plan; times in seconds")


def run(options: argparse.Namespace) -> CommandOutput:
    """Plan a study."""
    from kdsearch.compat import ensure_torchvision

    ensure_torchvision()
    from rich.console import Console

    from kdsearch.api.functions import plan
    from kdsearch.cli.space_options import space_of
    from kdsearch.planning.tables import print_plan

    errors = Console(stderr=True, highlight=False)
    space = space_of(options)
    for note in space.notes:
        errors.print(note, markup=False)
    with errors.status("measuring") as status:
        planned = plan(
            space, trials=options.trials, workers_per_trial=options.workers_per_trial,
            gpus_per_worker=options.gpus_per_worker, max_concurrent=options.slots, confirm=not options.no_confirm,
            storage=options.storage, seconds=options.seconds, seconds_per_trial=options.limit,
            log=lambda part: status.update(f"measuring {part}"),
        )  # fmt: skip
    return CommandOutput(planned.to_dict(), lambda: print_plan(planned), status=DONE if planned.stages else FAILED)
