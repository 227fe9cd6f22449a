"""`python -m kdsearch.run SPACE`: search, train, and leave the frontier in the run folder and in MLflow."""

from __future__ import annotations

import argparse
import sys

from kdsearch.errors import UserError
from kdsearch.secret import refuse_passwords

EXAMPLES = """examples:
  python -m kdsearch.run clfd                                      built-in scenes, minutes on a laptop
  python -m kdsearch.run clfd --data mfnet=/data/MFNet             your data
  python -m kdsearch.run clfd --data mfnet=/data/MFNet --set train.epochs=80 --trials 50
  python -m kdsearch.run clfd --resume                             go on with the latest study of this space
  python -m kdsearch.run clfd --resume --trials 80 --set 'train.lr={log: [1e-5, 1e-3]}'        ... with a wider range
  python -m kdsearch.run clfd --data pst900=/data/PST900 --warm-start runs/mfnet-1             what was good there first

exit status: 0 done, 1 the study failed or was interrupted, 2 the request was wrong"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a study."""
    add = parser.add_argument
    add("space", metavar="SPACE", help="name of a search space (clfd, ...) or path of its YAML file")
    add("--data", metavar="NAME=FOLDER", help="data set and where it lies; without it the demo profile runs")
    add("--profile", metavar="P", help="a profile of the space (default: the one named like the data set)")
    add("--set", metavar="K=V", action="append", default=[], dest="overrides", help="override any leaf; may repeat")
    add("--trials", metavar="N", type=positive, help="number of trials")
    add("--name", metavar="NAME", help="name of the run folder (default: space and time)")
    add("--resume", action="store_true", help="go on with a study that was interrupted")
    add("--extend", metavar="FILE", help="with --resume: an edited space to go on with; --set works there too")
    add(
        "--warm-start",
        metavar="RUN",
        action="append",
        default=[],
        help="run folder whose best trials come first; may repeat",
    )
    add("--storage", metavar="DIR", help="folder of all runs (default: ./runs; in a submitted job: ~/kdsearch-runs)")
    add("--tracking-uri", metavar="URI", help="MLflow server or database (default: mlflow.db in the run folder)")
    add("--address", metavar="ADDR", help="Ray cluster to use (default: the job's own, else one started here)")
    add("--workers-per-trial", metavar="N", type=positive, default=1, help="DDP ranks of each trial")
    add(
        "--gpus-per-worker",
        metavar="F",
        type=float,
        help="share of a GPU for each rank (default: 1 where there are any)",
    )
    add("--max-concurrent", metavar="N", type=positive, help="trials at a time (default: what fits)")
    add(
        "--grow-to",
        metavar="N",
        type=positive,
        help="trials at a time that an autoscaling cluster may come to hold: so many ask for room, and wait for nodes",
    )
    add("--no-confirm", action="store_true", help="skip repeats and controls of the frontier")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m kdsearch.run", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(options: argparse.Namespace) -> int:
    """Carry out a parsed command line; errors of the request become one sentence and exit status 2."""
    import os

    try:
        refuse_passwords([*vars(options).values(), *options.overrides])
        # Imported late: `--help` and a mistyped option must not wait for torch and Ray.
        from kdsearch.compat import ensure_torchvision

        ensure_torchvision()
        from kdsearch.requested import parse_data
        from kdsearch.search.study import Request, run_study

        submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
        return run_study(
            Request(
                space=options.space,
                data=parse_data(options.data),
                profile=options.profile,
                overrides=tuple(options.overrides),
                trials=options.trials,
                name=options.name,
                resume=options.resume,
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
        )
    except UserError as error:
        print(f"kdsearch: {error}", file=sys.stderr)
        return 2


def positive(text: str) -> int:
    """The type of an option that counts things."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


if __name__ == "__main__":
    sys.exit(main())
