"""The price of a bounded history: hypervolume that TPE reaches with all of its trials and with parts of them.

    python benchmarks/history.py [--trials 500] [--seeds 3]

On the objective of `overhead.py`, with noise; one run, no Ray.
"""

from __future__ import annotations

import argparse
import time
from collections import deque

import numpy as np
import optuna
from overhead import cost_of, miou_of

from kdsearch.config.space.search_space import load_space
from kdsearch.search.pareto import costs, hypervolume
from kdsearch.search.storage.study_storage import StudyStorage


def compare(trials: int, seeds: int) -> None:
    print(
        f"\nHypervolume after {trials} trials, mean and standard deviation of {seeds} seeds; CPU of a draw at the end\n"
    )
    print("| history | hypervolume | ms per draw |\n|---|---|---|")
    reference = np.array([0.0, 100.0])
    for history in (50, 100, 200, 400, trials + 1):
        volumes, times = [], []
        for seed in range(seeds):
            space = load_space(
                "clfd",
                overrides=[
                    f"search.sampler={{name: tpe, history: {history}}}", f"search.seed={seed}", "train.epochs=1"
                ],
            )  # fmt: skip
            storage = StudyStorage.open(None, space, cost_of)
            spent: deque[float] = deque(maxlen=50)
            for _ in range(trials):
                begin = time.process_time()
                trial = storage.ask()
                spent.append(time.process_time() - begin)
                assert trial is not None
                noise = np.random.default_rng([seed, int(trial.id[1:])]).normal(0, 0.01)
                trial.epoch, trial.metrics = 1, {"val/miou": miou_of(trial.config) + float(noise)}
                storage.tell(trial, "COMPLETE")
            # Without the noise of the training for which they were selected.
            expected = [{"miou": miou_of(r.config), **r.cost} for r in storage.frontier()]
            volumes.append(hypervolume(costs(expected, space.search.objectives), reference))
            times.append(np.mean(spent) * 1000)
        name = "all" if history > trials else str(history)
        print(f"| {name} | {np.mean(volumes):.3f} ± {np.std(volumes):.3f} | {np.mean(times):.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    compare(options.trials, options.seeds)


if __name__ == "__main__":
    main()
