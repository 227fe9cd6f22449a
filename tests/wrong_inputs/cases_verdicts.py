"""Limits of trials and of the machines they run on."""

from __future__ import annotations

from tests.wrong_inputs.case import Case


def _run(name: str, options: str, message: str) -> Case:
    return Case(name, f"run clfd --profile demo {options}", message)


CASES = [
    _run(
        "negative-restarts", "--set search.max_failures=-1", "search.max_failures: should be greater than or equal to 0"
    ),
    _run(
        "restarts-that-are-a-word", "--set search.max_failures=many", "search.max_failures: should be a valid integer"
    ),
    _run("restarts-that-are-half", "--set search.max_failures=1.5", "search.max_failures: should be a valid integer"),
    _run("no-time-to-start", "--set search.start_timeout=0", "search.start_timeout: should be greater than 0"),
    _run("time-to-start-that-is-a-word", "--set search.start_timeout=soon", "search.start_timeout: should be a valid"),
    _run(
        "negative-time-of-an-epoch", "--set search.epoch_timeout=-5", "search.epoch_timeout: should be greater than 0"
    ),
    _run("a-setting-of-retries-that-is-not-there", "--set search.retries=3", "search.retries"),
    _run("one-and-a-half-gpus", "--gpus-per-worker 1.5", r"--gpus-per-worker 1\.5: give a share of one GPU \(0\.5\)"),
    _run("negative-gpus", "--gpus-per-worker=-1", "--gpus-per-worker -1: give a share of one GPU"),
    _run("gpus-that-are-no-number", "--gpus-per-worker nan", "--gpus-per-worker nan: give a share of one GPU"),
    _run("endless-gpus", "--gpus-per-worker inf", "--gpus-per-worker inf: give a share of one GPU"),
    _run("time-limit-of-nothing", "--time-limit 0", "--time-limit 0: give a positive number"),
    _run("grow-beyond-the-maximum", "--grow-to 4 --max-concurrent 2", "leave one of them out, or make them equal"),
    _run("no-workers", "--workers-per-trial 0", "--workers-per-trial: 0 is not a positive number"),
    _run("workers-that-do-not-divide-a-batch", "--workers-per-trial 3", "does not divide over 3 workers a trial: use"),
    _run("no-trial-at-a-time", "--max-concurrent 0", "--max-concurrent: 0 is not a positive number"),
    _run("grow-to-nothing", "--grow-to 0", "--grow-to: 0 is not a positive number"),
]
