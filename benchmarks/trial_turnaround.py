"""Seconds from the end of one trial to the first step of the next: resident workers against a TorchTrainer per trial.

    python benchmarks/trial_turnaround.py [--trials 4] [--ranks 1 2]

Both forms train the same small student on built-in scenes, one trial at a time under Ray Tune, in one run. The first
step of a resident trial is taken as the arrival of its first epoch at the driver minus the epoch's own time, so saving
and transport count against it; the other form notes its times inside the worker.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kdsearch.compat import ensure_torchvision
from kdsearch.config.trial import TrialConfig
from kdsearch.engine.messages import Placement, TrialJob
from kdsearch.engine.timeouts import Timeouts
from kdsearch.search.trial_record import TrialRecord

CONFIG = {
    "data": {"name": "scenes", "size": [64, 96], "options": {"train": 16, "val": 8}},
    "student": {"arch": "fpn", "encoder": "tu-mobilenetv3_small_050"},
    "train": {"epochs": 1, "batch_size": 8},
}


class Clock:
    """A controller that hands out equal trials and notes when each began and ended."""

    def __init__(self, trials: int) -> None:
        self.left = [
            TrialRecord(f"t{i:04d}", "search", "RUNNING", TrialConfig.model_validate(CONFIG), {}, {})
            for i in range(trials)
        ]
        self.in_flight: dict[str, TrialRecord] = {}
        self.storage = SimpleNamespace(trials=[])  # nothing was trained before
        self.times: list[tuple[float, float]] = []

    def next_trial(self) -> TrialRecord | str:
        if not self.left:
            return "done"
        record = self.left.pop(0)
        self.in_flight[record.id] = record
        return record

    def taken_back(self) -> list[TrialRecord]:
        return []

    def on_report(self, trial_id: str, epoch: int, metrics: dict[str, float]) -> bool:
        now = time.time()
        self.times.append((now - metrics["time/train_s"] - metrics["time/val_s"], now))
        return False

    def on_trial_end(self, trial_id: str, failure: str | None, infeasible: bool = False) -> None:
        if failure is not None:
            raise RuntimeError(failure)
        del self.in_flight[trial_id]


def resident(trials: int, placement: Placement, store: Path, scratch: Path) -> list[float]:
    from kdsearch.engine.cluster import living_nodes
    from kdsearch.engine.faults import Faults
    from kdsearch.engine.tune import run_trials

    clock = Clock(trials)
    faults = Faults(placement, 0, living_nodes)

    def job_of(record: TrialRecord) -> TrialJob:
        config = record.config.model_dump_json()
        return TrialJob(record.id, config, str(store), None, str(scratch / f"{record.id}.pt"), str(scratch / record.id))

    run_trials(clock, job_of, placement, lambda: 1, faults, Timeouts(900))
    return gaps(clock.times)


def per_trial(trials: int, placement: Placement, store: Path, scratch: Path) -> list[float]:
    from ray import tune

    tune.Tuner(
        tune.with_resources(one_trainer, {"node:__internal_head__": 0.0001}),
        param_space={
            "i": tune.grid_search(list(range(trials))), "workers": placement.workers, "store": str(store),
            "scratch": str(scratch),
        },
        tune_config=tune.TuneConfig(max_concurrent_trials=1),
        run_config=tune.RunConfig(name="per-trial", storage_path=str(scratch), verbose=0),
    ).fit()  # fmt: skip
    files = sorted(scratch.glob("times-*.json"), key=lambda path: json.loads(path.read_text())[0])
    return gaps([tuple(json.loads(path.read_text())) for path in files])


def one_trainer(config: dict[str, Any]) -> None:
    """A Tune trial in the form that Ray's guides give: a Ray Train run of its own."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    TorchTrainer(
        train_function,
        train_loop_config=config,
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=config["workers"], resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name=f"trial-{config['i']}", storage_path=config["scratch"]),
    ).fit()


def train_function(config: dict[str, Any]) -> None:
    from ray.train import get_context

    ensure_torchvision()
    import torch

    from kdsearch.train.resources import Resources
    from kdsearch.train.trial import Trial

    context = get_context()
    rank, ranks = context.get_world_rank(), context.get_world_size()
    resources = Resources(Path(config["store"]), None, torch.device("cpu"), rank, ranks)
    trial = Trial(TrialConfig.model_validate(CONFIG), resources)
    started = time.time()
    trial.train_epoch()
    trial.validate()
    if rank == 0:
        Path(config["scratch"], f"times-{config['i']}.json").write_text(json.dumps([started, time.time()]))


def gaps(times: list[tuple[float, ...]]) -> list[float]:
    return [after[0] - before[1] for before, after in itertools.pairwise(times)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    ensure_torchvision()
    from kdsearch.data.store.store import build_store
    from kdsearch.engine.cluster import connected

    root = Path(tempfile.mkdtemp(prefix="turnaround-"))
    store = build_store(TrialConfig.model_validate(CONFIG).data, root / "data")
    rows = []
    try:
        with connected(None):
            for ranks in options.ranks:
                placement = Placement(workers=ranks)
                measured = []
                for name, form in (("resident", resident), ("per-trial", per_trial)):
                    scratch = root / f"{name}-{ranks}"
                    scratch.mkdir()
                    measured.append(statistics.median(form(options.trials, placement, store.path, scratch)))
                rows.append((ranks, *measured, measured[1] / measured[0]))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print("| ranks | resident workers, s | TorchTrainer per trial, s | ratio |\n|---|---|---|---|")
    for ranks, ours, theirs, ratio in rows:
        print(f"| {ranks} | {ours:.3f} | {theirs:.2f} | {ratio:.0f} |")


if __name__ == "__main__":
    main()
