"""The overhead of a study's driver: CPU seconds and time of trials that do no work, with 8 running at a time.

    python benchmarks/overhead.py [--trials 1000] [--limit 300] [--rows "bare Optuna"] [--profile]

One after the other, in one run: kdsearch on Ray Tune (controller, journal, tables, MLflow in SQLite; each trial reports
one epoch of 16 metrics), beside bare Tune with `reuse_actors` and the same trainable, which does nothing; kdsearch's
driver without Ray, and parts of it; bare Optuna with a journal file and the same parameters. CPU is that of the driver
process with all its threads; the process that writes to MLflow has a column of its own. `--limit` ends a row after so
many seconds, and the table shows how far it came. `--profile` prints a profile of the driver. GFLOPs come from a
formula: the real ones are computed once per student.
"""

from __future__ import annotations

import argparse
import cProfile
import logging
import math
import os
import pstats
import resource
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from ray import tune

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.config.trial import TrialConfig
from kdsearch.engine.cluster import connected
from kdsearch.engine.timeouts import Timeouts
from kdsearch.io.atomic import write_text
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.callbacks import CallbackList, StudyCallback
from kdsearch.search.controller import StudyController
from kdsearch.search.sampling.distributions import suggest
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord
from kdsearch.tracking.artifacts import ArtifactsCallback
from kdsearch.tracking.mlflow.callback import MLflowCallback

SLOTS = 8
START_S = 25.0
"""Seconds in which the processes of all slots start."""
CLASSES = 9


def space_of(sampler: str, trials: int) -> SearchSpace:
    """The published space of CLNet's distillation: 11 parameters, 7 to 10 of them in a trial; trials of one epoch."""
    overrides = [f"search.sampler={sampler}", f"search.trials={trials}", "search.rungs=[]", "train.epochs=1"]
    return load_space("clfd", overrides=overrides)


def cost_of(config: TrialConfig) -> dict[str, float]:
    student = config.student
    size = {"mit_b0": 1.0, "mit_b1": 2.0, "mit_b2": 4.0, "mobilenet_v2": 1.2, "resnet18": 1.8}[student.encoder]
    gflops = 10 * size * (getattr(student, "width", 48) / 48) ** 0.5
    return {"gflops": gflops, "params_m": size}


def miou_of(config: TrialConfig) -> float:
    """A smooth function with one optimum per student, higher for more expensive ones."""
    terms: dict[str, Any] = dict(config.distill)
    away = abs(math.log10(config.train.lr / 2e-4)) + abs(math.log10(terms["dsrd"].weight))
    away += abs(math.log10(terms["clfd"].weight / 0.3)) + abs(math.log10(terms["clfd"].tau / 0.2))
    return 0.6 - 0.05 * away - 1 / (4 + cost_of(config)["gflops"])


def metrics_of(config: TrialConfig) -> dict[str, float]:
    miou = miou_of(config)
    return {"val/miou": miou, "time/train_s": 0.0, "time/val_s": 0.0, "val/pixel_accuracy": 0.9} | {
        f"{kind}{i}": miou for kind, n in (("val/iou/class", CLASSES), ("loss/term", 3)) for i in range(n)
    }


class TimeUpError(Exception):
    """A row has had its time."""


class Clock:
    """CPU time (of this process, its threads included) and wall time of the trials between marks."""

    def __init__(self, marks: Iterable[int], limit_s: float) -> None:
        self.marks, self.limit_s = set(marks), limit_s
        self.tracking: tuple[float, float] | None = None
        """CPU seconds of the process that writes to MLflow, and the time at which it had written everything."""
        self.rows: dict[int, tuple[float, float]] = {}
        self.start()

    def start(self) -> None:
        self.begin = self.last = (0, time.process_time(), time.perf_counter())

    def count(self, n: int) -> None:
        """`n` trials have ended. At a mark, store the CPU and wall time per trial since the mark before."""
        if n in self.marks or time.perf_counter() > self.begin[2] + self.limit_s:
            now = (n, time.process_time(), time.perf_counter())
            trials = n - self.last[0]
            self.rows[n] = ((now[1] - self.last[1]) / trials, (now[2] - self.last[2]) / trials)
            self.last = now
            print(f"  {n}: {self.rows[n][0] * 1000:.1f} ms CPU, {self.rows[n][1] * 1000:.1f} ms", flush=True)
            if n not in self.marks:
                raise TimeUpError


@contextmanager
def study(space: SearchSpace, clock: Clock, with_tracker: bool) -> Iterator[tuple[StudyController, StudyStorage]]:
    """The objects of a study's driver, in a temporary folder."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        run = RunFolder(Path(name) / "run")
        run.create()
        write_text(run.space, space.to_yaml())  # the pages of a study are made from its folder
        storage = StudyStorage.open(run.journal, space, cost_of)
        stack.callback(storage.close)
        search = space.search
        rungs = RungState(search.rungs, search.objectives, search.stop, search.reduction, run.rungs)
        callbacks: list[StudyCallback] = [ArtifactsCallback(space, run, storage, dict, rungs)]
        if with_tracker:
            store: Any = SimpleNamespace(path=run.path, fingerprint="0" * 36, info=SimpleNamespace(name="none"))
            callbacks.append(stack.enter_context(tracked(MLflowCallback(None, space, run, print), store, clock)))
        yield StudyController(space, storage, rungs, {"gflops": 100.0}, None, False, CallbackList(callbacks)), storage


@contextmanager
def tracked(tracker: MLflowCallback, store: Any, clock: Clock) -> Iterator[MLflowCallback]:
    """The started callback; afterwards `clock` has the CPU time of its process, which ends with this context."""

    def children_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # of those that have ended
        return usage.ru_utime + usage.ru_stime

    before_s = children_s()
    with tracker:
        tracker.begin(store)
        yield tracker
    clock.tracking = children_s() - before_s, time.perf_counter() - clock.begin[2]


def driver(trials: int, clock: Clock, sampler: str, with_tracker: bool) -> None:
    """kdsearch without Ray: as many trials as slots are running; the oldest ends first."""
    with study(space_of(sampler, trials), clock, with_tracker) as (controller, _):
        clock.start()
        out: deque[TrialRecord] = deque()
        over = 0
        while True:
            while len(out) < SLOTS and isinstance(asked := controller.next_trial(), TrialRecord):
                out.append(asked)
            if not out:
                break
            trial = out.popleft()
            controller.on_report(trial.id, 1, metrics_of(trial.config))
            controller.on_trial_end(trial.id, None)
            over += 1
            clock.count(over)


def bare_optuna(trials: int, clock: Clock, in_memory: bool = False) -> None:
    """The same parameters and values with the defaults of TPE and of the journal file."""
    with tempfile.TemporaryDirectory() as name:
        storage: Any = None
        if not in_memory:
            backend = optuna.storages.journal.JournalFileBackend(f"{name}/journal")
            storage = optuna.storages.JournalStorage(backend)
        sampler = optuna.samplers.TPESampler(seed=0)
        bare = optuna.create_study(storage=storage, directions=["maximize", "minimize"], sampler=sampler)
        space = space_of("tpe", trials)
        clock.start()
        out: deque[tuple[optuna.Trial, TrialConfig]] = deque()
        for over in range(1, trials + 1):
            while len(out) < SLOTS:
                trial = bare.ask()
                out.append((trial, space.sample(lambda name, domain, t=trial: suggest(t, name, domain)).trial))
            trial, config = out.popleft()
            bare.tell(trial, [miou_of(config), cost_of(config)["gflops"]])
            clock.count(over)


class NoWork(tune.Trainable):
    """Answers each step at once with the metrics that its config holds.

    The first step of an actor takes until the actors of all slots have started, as real work does. Without that Tune
    gives a trial whose actor is still starting the actor of one that is over, and stops the new one: it would start
    processes throughout, with and without kdsearch.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self.wait_s = START_S
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.metrics = new_config.get("job", {})
        return True

    def step(self) -> dict[str, Any]:
        time.sleep(self.wait_s)
        self.wait_s = 0.0
        return {"epoch": 1, **{f"metrics/{name}": value for name, value in self.metrics.items()}}

    def save_checkpoint(self, checkpoint_dir: str) -> None: ...

    def load_checkpoint(self, checkpoint: Any) -> None: ...


class Ticks(tune.Callback):
    def __init__(self, clock: Clock) -> None:
        self.clock, self.over = clock, 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.over += 1
        with suppress(TimeUpError):  # Tune has the same limit
            self.clock.count(self.over)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def kdsearch_on_tune(trials: int, clock: Clock) -> None:
    from kdsearch.engine.cluster import living_nodes
    from kdsearch.engine.faults import Faults
    from kdsearch.engine.messages import Placement
    from kdsearch.engine.tune import run_trials

    with study(space_of("tpe", trials), clock, True) as (controller, storage):
        clock.start()
        assert isinstance(controller.callback, CallbackList)
        controller.callback.callbacks.append(_Counting(clock))
        job_of: Any = lambda trial: metrics_of(trial.config)  # noqa: E731
        placement = Placement(cpus=0.0)
        faults = Faults(placement, 0, living_nodes)
        run_trials(controller, job_of, placement, lambda: SLOTS, faults, Timeouts(900), trainable=NoWork)
        assert len(storage.complete("search")) == trials, "every trial is complete"


class _Counting(StudyCallback):
    """Counts ended trials; it is critical, so that the end of a row's time ends its study."""

    critical = True

    def __init__(self, clock: Clock) -> None:
        self.clock, self.over = clock, 0

    def on_trial_end(self, trial: TrialRecord) -> None:
        self.over += 1
        self.clock.count(self.over)


def bare_tune(trials: int, clock: Clock) -> None:
    os.environ.pop("TUNE_MAX_PENDING_TRIALS_PG", None)  # set by kdsearch; bare Tune runs with its defaults
    clock.start()
    with tempfile.TemporaryDirectory() as name:
        tune.Tuner(
            tune.with_resources(NoWork, {"node:__internal_head__": 0.0001}),
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(
                num_samples=trials, reuse_actors=True, max_concurrent_trials=SLOTS, time_budget_s=clock.limit_s
            ),
            run_config=tune.RunConfig(
                storage_path=name, verbose=0, callbacks=[Ticks(clock)], stop={"epoch": 1},
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        ).fit()  # fmt: skip


def table(rows: dict[str, Clock], marks: list[int]) -> None:
    """One row per driver; a span that was cut off has the number of its last trial."""
    print(f"\nCPU ms of the driver per trial (wall ms per trial), {SLOTS} running at a time\n")
    spans = list(zip([0, *marks], marks, strict=False))
    heads = [
        "",
        *(f"trials {a + 1} to {b}" for a, b in spans),
        "seconds",
        "MLflow's process: CPU ms per trial, done after s",
    ]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, clock in rows.items():
        cells = []
        for a, b in spans:
            n = max((n for n in clock.rows if a < n <= b), default=None)
            until = f", to {n}" if n != b else ""
            cells.append("-" if n is None else f"{clock.rows[n][0] * 1e3:.1f} ({clock.rows[n][1] * 1e3:.1f}){until}")
        beside = "-"
        if clock.tracking is not None:
            beside = f"{clock.tracking[0] / max(clock.rows) * 1e3:.1f}, {clock.tracking[1]:.0f}"
        print(f"| {name} | {' | '.join(cells)} | {clock.last[2] - clock.begin[2]:.0f} | {beside} |")


ROWS: dict[str, Callable[[int, Clock], None]] = {
    "kdsearch on Ray Tune: journal, tables, MLflow, TPE": kdsearch_on_tune,
    "bare Ray Tune: random draws, reuse_actors": bare_tune,
    "kdsearch without Ray": partial(driver, sampler="tpe", with_tracker=True),
    "the same without MLflow": partial(driver, sampler="tpe", with_tracker=False),
    "the same with random draws": partial(driver, sampler="random", with_tracker=False),
    "bare Optuna: journal file, TPE": bare_optuna,
    "bare Optuna: in memory, TPE": partial(bare_optuna, in_memory=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--limit", type=float, default=600, help="seconds for each row")
    parser.add_argument("--rows", nargs="+", default=[""], help="only rows whose names hold one of these")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    n = options.trials
    marks = sorted({mark for mark in (SLOTS, 100, 1000, 3000, 10_000) if mark < n} | {n})
    if options.profile:
        with cProfile.Profile() as profile:
            driver(n, Clock(marks, options.limit), "tpe", True)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(55)
        return
    clocks: dict[str, Clock] = {}
    wanted = {name: row for name, row in ROWS.items() if any(part in name for part in options.rows)}
    with connected(None) if any("Ray Tune" in name for name in wanted) else nullcontext():
        for name, row in wanted.items():
            print(name, flush=True)
            clocks[name] = Clock(marks, options.limit)
            with suppress(TimeUpError):
                row(n, clocks[name])
    table(clocks, marks)


if __name__ == "__main__":
    main()
