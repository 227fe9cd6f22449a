"""`kdsearch run SPACE`, or `python -m kdsearch.run SPACE`: search a space and keep the frontier in the run folder."""

from __future__ import annotations

import argparse

from kdsearch.cli import completion as complete
from kdsearch.cli.exit_status import DONE, FAILED, INTERRUPTED
from kdsearch.cli.output import CommandOutput
from kdsearch.cli.parser import Commands, add_command, add_json, add_space, add_storage, positive

ABOUT = """\
The teacher is trained first, unless the storage has it, then trial after trial. The frontier, its students and a report
are written to the run folder and to MLflow. Ctrl-C ends a study and keeps its results; --resume continues it.

'python -m kdsearch.run' is the same command.
"""
EXAMPLES = (
    "run clfd                              built-in scenes: no data needed",
    "run clfd --data mfnet=/data/MFNet     your data",
    "run clfd --data mfnet=/data/MFNet --set train.epochs=80 --trials 50",
    "run clfd --latency cpu:4              mIoU against latency",
    "run clfd --resume                     continue the latest study",
    "run clfd --resume --set 'train.lr={log: [1e-5, 1e-3]}'",
    "run clfd --resume --data mfnet=/new/MFNet",
    "run clfd --data pst900=/data/PST900 --warm-start runs/mfnet-1",
)


EXIT = {"done": DONE, "failed": FAILED, "interrupted": INTERRUPTED}
"""Exit status by the status of the study."""


def add_to(commands: Commands) -> None:
    command = add_command(
        commands, "run", run, help="search a space: train, stop early, keep the frontier", about=ABOUT,
        examples=EXAMPLES, failed="the study failed",
    )  # fmt: skip
    add_arguments(command)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a study."""
    space = parser.add_argument_group("search")
    add_space(space, "the demo profile runs")
    add = space.add_argument
    add("--trials", metavar="N", type=positive, help="number of trials (default: that of the space)")
    add(
        "--time-limit",
        metavar="S",
        type=float,
        help="seconds after which no further trial starts (default: no limit)",
    )
    add(
        "--latency",
        metavar="DEVICE",
        help="search mIoU against latency instead of FLOPs, measured on cpu (one thread), cpu:4 or cuda",
    )
    add("--no-confirm", action="store_true", help="skip repeats and controls of the frontier")
    kept = parser.add_argument_group("storage and resuming")
    add = kept.add_argument
    complete.by(
        add("--name", metavar="NAME", help="name of the run folder (default: space and time)"), complete.run_names
    )
    add_storage(kept, "folder of all runs (default: runs; in a submitted job: ~/kdsearch-runs)", default=None)
    add("--tracking-uri", metavar="URI", help="MLflow server or database (default: mlflow.db in the run folder)")
    add("--resume", action="store_true", help="continue a study: the one named, or the latest of this space")
    add("--extend", metavar="FILE", help="with --resume: continue with this edited space; --set works as well")
    warm = add(
        "--warm-start",
        metavar="RUN",
        action="append",
        default=[],
        help="run folder whose best trials come first; may repeat",
    )
    complete.by(warm, complete.runs)
    add_json(parser, "run, and the fields of its summary.json")
    add = parser.add_argument_group("resources").add_argument
    add("--address", metavar="ADDR", help="Ray cluster to use (default: the job's own, else one started here)")
    add("--workers-per-trial", metavar="N", type=positive, default=1, help="DDP ranks per trial (default: 1)")
    add(
        "--gpus-per-worker",
        metavar="F",
        type=float,
        help="GPUs, or share of one, per rank (default: 1 if the cluster has GPUs)",
    )
    add("--max-concurrent", metavar="N", type=positive, help="trials at a time (default: as many as fit)")
    add(
        "--grow-to",
        metavar="N",
        type=positive,
        help="request room for N trials at a time on an autoscaling cluster, and wait for the nodes",
    )


def run(options: argparse.Namespace) -> CommandOutput:
    """Run a study."""
    import os

    # Imported late: `--help` and a mistyped option must not wait for torch and Ray.
    from kdsearch.compat import ensure_torchvision

    ensure_torchvision()
    from kdsearch.api.request import StudyRequest, requested_space
    from kdsearch.api.search import plugin_callbacks, run_study
    from kdsearch.cli.terminal import TerminalCallback
    from kdsearch.errors import StudyFailedError

    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    request = StudyRequest(
        space=requested_space(
            options.space,
            data=options.data,
            profile=options.profile,
            latency=options.latency,
            resume=options.resume,
        ),
        overrides=tuple(options.overrides),
        trials=options.trials,
        time_limit=options.time_limit,
        name=options.name,
        resume=options.resume,
        data=options.data,
        extend=options.extend,
        warm_start=tuple(options.warm_start),
        storage=options.storage or ("~/kdsearch-runs" if submitted else "runs"),
        tracking_uri=options.tracking_uri,
        address=options.address,
        workers_per_trial=options.workers_per_trial,
        gpus_per_worker=options.gpus_per_worker,
        max_concurrent=options.max_concurrent,
        grow_to=options.grow_to,
        confirm=not options.no_confirm,
    )
    terminal = TerminalCallback()
    try:
        study = run_study(request, [*plugin_callbacks(), terminal])
    except StudyFailedError as failed:
        study = failed.study
    finally:
        terminal.restore()
    status = study.status
    # A study that ended before its first trial has no summary.
    summary = study.summary().to_dict() if (study.path / "summary.json").exists() else {}
    return CommandOutput({"run": str(study.path), **summary}, status=EXIT[status])
