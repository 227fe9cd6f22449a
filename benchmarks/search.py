"""kdsearch's default search against others, on simulated studies: hypervolume at equal epochs.

    python benchmarks/search.py --seeds 10 --out benchmarks/results/search.md

Every method trains on 8 asynchronous slots under a fake clock until all its trials together have had as many epochs as
40, and 120, whole trainings. What counts then are the trials that were completed, each with the mIoU that its
configuration reaches at its last epoch without the noise of a seed, whatever the method had observed. The number is the
volume that they dominate over the volume that the benchmark's best known frontier dominates. Methods with the same seed
search the same variant of a benchmark, so a second table has the mean of their differences.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Protocol

import numpy as np
import optuna
from numpy.typing import NDArray
from parametric import Parametric

from kdsearch.config.space.overrides import set_override
from kdsearch.config.space.ranges import Choice, Int, IntLog, Log, Range
from kdsearch.config.space.search_space import Sample, SearchSpace
from kdsearch.config.space.yaml_tree import parse_yaml
from kdsearch.config.trial import TrialConfig
from kdsearch.search.callbacks import StudyCallback
from kdsearch.search.controller import StudyController
from kdsearch.search.pareto import hypervolume
from kdsearch.search.simulation.backend import SimulatedStudy, SimulatorBackend
from kdsearch.search.simulation.tabular_benchmark import BenchmarkTable, TabularBenchmark
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import Outcome, TrialRecord

BUDGETS = (40, 120)
SLOTS = 8
"""Trials at a time."""


class SearchBenchmark(Protocol):
    """A `Benchmark` of the simulator whose best frontier is known."""

    space: SearchSpace
    epochs: int

    def cost(self, config: TrialConfig) -> dict[str, float]: ...
    def curve(self, trial: TrialRecord) -> NDArray[np.float64]: ...
    def seconds(self, trial: TrialRecord) -> float: ...
    def final_miou(self, trial: TrialRecord) -> float: ...
    def reference(self) -> dict[str, float]: ...
    def best(self) -> NDArray[np.float64]: ...


class Camvid(TabularBenchmark):
    """Real curves on CamVid. Each variant but 0 is fitted without a random fifth of the trials."""

    def __init__(self, variant: int) -> None:
        table = BenchmarkTable.load(Path(__file__).parent / "landscapes" / "camvid.json")
        rng = np.random.default_rng([11, variant])
        left_out = rng.permutation(len(table.rows))[: len(table.rows) // 5 if variant else 0]
        super().__init__(
            BenchmarkTable(table.space, [row for i, row in enumerate(table.rows) if i not in left_out]), variant
        )

    def reference(self) -> dict[str, float]:
        """A mIoU that nine trials of ten exceed, and a little more than the largest student costs."""
        worst = float(np.quantile([row.curve[-1] for row in self.rows], 0.1))
        return {"gflops": 1.05 * max(row.cost["gflops"] for row in self.rows), "miou": worst}

    def best(self) -> NDArray[np.float64]:
        """The frontier of 2,000 random configurations, each then improved one parameter at a time."""
        rng = np.random.default_rng(0)
        domains = self.space.parameters()

        def point(sample: Sample) -> tuple[float, float]:
            return float(self.expected_curve(sample.params)[-1]), self.cost(sample.trial)["gflops"]

        samples = [self.space.sample(lambda _, domain: draw(rng, domain)) for _ in range(2000)]
        best: dict[float, tuple[float, Sample]] = {}
        for sample in samples:
            miou, gflops = point(sample)
            if miou > best.get(gflops, (-1.0, sample))[0]:
                best[gflops] = miou, sample
        for gflops in best:
            for _ in range(500):
                params = dict(best[gflops][1].params)
                name = rng.choice(list(params))
                sample = self.space.from_params(params | {name: draw(rng, domains[name])})
                if point(sample)[1] == gflops and point(sample)[0] > best[gflops][0]:
                    best[gflops] = point(sample)[0], sample
        return np.array([[miou, gflops] for gflops, (miou, _) in best.items()])


def draw(rng: np.random.Generator, domain: Range) -> Any:
    """A value of the range at random."""
    if isinstance(domain, Choice):
        return domain.options[rng.integers(len(domain.options))]
    if isinstance(domain, Log | IntLog):
        value = math.exp(rng.uniform(math.log(domain.low), math.log(domain.high)))
    else:
        value = rng.uniform(domain.low, domain.high)
    return round(value) if isinstance(domain, Int | IntLog) else value


BENCHMARKS: dict[str, Callable[[int], SearchBenchmark]] = {"parametric": Parametric, "camvid": Camvid}


class StoppedAsComplete(StudyStorage):
    """Tells the sampler that stopped trials are complete, with the value at their rung, as Ray does."""

    def tell(self, record: TrialRecord, state: Outcome, reason: str = "") -> None:
        super().tell(record, "COMPLETE" if state == "PRUNED" else state, reason)


class RaySearch:
    """Ray's `OptunaSearch` and `ASHAScheduler` with the settings they come with, driven without a cluster.

    Both receive the horizon or the objectives and nothing else. Like kdsearch, the search starts with the space's
    defaults.
    """

    def __init__(self, benchmark: SearchBenchmark, seed: int, metrics: list[str]) -> None:
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        self.benchmark = benchmark
        several = len(metrics) > 1
        modes = ["max" if metric == "miou" else "min" for metric in metrics]
        self.searcher = OptunaSearch(
            self._define, metric=metrics if several else metrics[0], mode=modes if several else modes[0], seed=seed,
            points_to_evaluate=[dict(benchmark.space.default().params)],
        )  # fmt: skip
        self.scheduler = ASHAScheduler(metric="miou", mode="max", max_t=benchmark.epochs)
        self.records: dict[str, TrialRecord] = {}

    def _define(self, trial: Any) -> None:
        self._sample = self.benchmark.space.sample(partial(_suggest, trial))

    def next_trial(self) -> TrialRecord | Literal["wait", "done"]:
        trial_id = f"r{len(self.records):05d}"
        self.searcher.suggest(trial_id)
        sample = self._sample
        record = TrialRecord(
            trial_id, "search", "RUNNING", sample.trial, dict(sample.params), self.benchmark.cost(sample.trial)
        )
        self.records[trial_id] = record
        self.scheduler.on_trial_add(None, SimpleNamespace(trial_id=trial_id))
        return record

    def on_report(self, trial_id: str, epoch: int, metrics: dict[str, float]) -> bool:
        record = self.records[trial_id]
        record.epoch, record.metrics = epoch, metrics
        result = self._result(record)
        if epoch < self.benchmark.epochs:
            self.searcher.on_trial_result(trial_id, result)
        return str(self.scheduler.on_trial_result(None, SimpleNamespace(trial_id=trial_id), result)) == "CONTINUE"

    def on_trial_end(self, trial_id: str, failure: str | None) -> None:
        self.searcher.on_trial_complete(trial_id, self._result(self.records[trial_id]))

    @staticmethod
    def _result(record: TrialRecord) -> dict[str, float]:
        return {"training_iteration": record.epoch, "miou": record.miou, "gflops": record.cost["gflops"]}


def _suggest(trial: Any, name: str, domain: Range) -> Any:
    """Ask an Optuna trial, or what stands for one, for a parameter of a space."""
    if isinstance(domain, Choice):
        return trial.suggest_categorical(name, domain.categories)
    if isinstance(domain, Int | IntLog):
        return trial.suggest_int(name, domain.low, domain.high, log=isinstance(domain, IntLog))
    return trial.suggest_float(name, domain.low, domain.high, log=isinstance(domain, Log))


def ours(
    benchmark: SearchBenchmark, seed: int, kind: type[StudyStorage] = StudyStorage, **search: str
) -> SimulatedStudy:
    """A study of kdsearch on the benchmark's space and rungs, with default settings or those given here."""
    settings = {"seed": str(seed), "trials": "1000000"} | search
    tree = parse_yaml(benchmark.space.to_yaml(), lambda line: "space")
    for name in ("sampler", "stop", "reduction", "audit"):
        tree["search"].pop(name, None)
    for name, value in settings.items():
        set_override(tree, f"search.{name}={value}")
    space = SearchSpace(tree, "space")
    options = space.search
    storage = kind.open(None, space, benchmark.cost)
    rungs = RungState(
        options.rungs, options.objectives, options.stop, options.reduction, audit=options.audit, seed=options.seed
    )
    return StudyController(
        space, storage, rungs, benchmark.reference(), teacher=None, confirm=False, callback=StudyCallback()
    )


METHODS: dict[str, Callable[[SearchBenchmark, int], SimulatedStudy]] = {
    "kdsearch": ours,
    "random": partial(ours, sampler="random", stop="none"),
    "NSGA-II": partial(ours, sampler="nsga2", stop="none"),
    "TPE": partial(ours, stop="none"),
    "TPE + ASHA on mIoU": partial(ours, kind=StoppedAsComplete, stop="miou", audit="0"),
    "Ray: OptunaSearch(mIoU, GFLOPs) + ASHA": partial(RaySearch, metrics=["miou", "gflops"]),
    "Ray: OptunaSearch(mIoU) + ASHA": partial(RaySearch, metrics=["miou"]),
}


def volume(benchmark: SearchBenchmark, points_n2: NDArray[np.float64]) -> float:
    """What points of (mIoU, GFLOPs) dominate within the benchmark's reference."""
    corner = benchmark.reference()
    return hypervolume(points_n2 * (-1, 1), np.array([-corner["miou"], corner["gflops"]]))


@lru_cache(maxsize=4)
def benchmark_and_best(name: str, variant: int) -> tuple[SearchBenchmark, float]:
    """A variant of a benchmark, and the volume of its best known frontier."""
    benchmark = BENCHMARKS[name](variant)
    return benchmark, volume(benchmark, benchmark.best())


def run(job: tuple[str, str, int]) -> tuple[str, str, int, list[float]]:
    """Simulate one method on the variant of a benchmark that the seed names: the job, and the volume at each budget."""
    name, benchmark_name, seed = job
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    benchmark, whole = benchmark_and_best(benchmark_name, seed)
    completed = SimulatorBackend(benchmark, SLOTS).run(METHODS[name](benchmark, seed), max(BUDGETS) * benchmark.epochs)
    reached = []
    for budget in BUDGETS:
        within = [c.record for c in completed if c.epochs <= budget * benchmark.epochs]
        reached.append(
            volume(benchmark, np.array([[benchmark.final_miou(r), r.cost["gflops"]] for r in within])) / whole
        )
    return name, benchmark_name, seed, reached


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {spread:.3f}"


def mean_and_error(differences: Sequence[float]) -> str:
    """Mean and its standard error."""
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return f"{statistics.mean(differences):+.4f} ± {error:.4f}"


def table(columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A markdown table, its rows by their names."""
    head = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    return "\n".join([*head, *(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="seeds, each on a variant of the benchmark of its own")
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--benchmarks", nargs="+", choices=list(BENCHMARKS), default=list(BENCHMARKS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--jobs", type=int, default=2, help="simulations side by side")
    parser.add_argument("--out", type=Path, help="write the table to this file")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    jobs = [(name, benchmark, seed) for seed in seeds for benchmark in options.benchmarks for name in options.methods]
    reached: dict[tuple[str, str, int], list[float]] = {}
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for name, benchmark, seed, volumes in pool.imap_unordered(run, jobs):
            reached[name, benchmark, seed] = volumes
            print(benchmark, name, seed, [f"{volume:.4f}" for volume in volumes], flush=True)
    columns = [(benchmark, i) for benchmark in options.benchmarks for i in range(len(BUDGETS))]
    titles = [f"{benchmark}, {BUDGETS[i]}" for benchmark, i in columns]

    def each(name: str, benchmark: str, i: int) -> list[float]:
        return [reached[name, benchmark, seed][i] for seed in seeds]

    def ahead(name: str, benchmark: str, i: int) -> list[float]:
        return [
            own - other for own, other in zip(each("kdsearch", benchmark, i), each(name, benchmark, i), strict=True)
        ]

    text = HEADER.format(seeds=options.seeds, slots=SLOTS, first=options.first_seed) + "\n"
    text += table(titles, {name: [mean_and_spread(each(name, *at)) for at in columns] for name in options.methods})
    if "kdsearch" in options.methods and len(options.methods) > 1:
        others = [name for name in options.methods if name != "kdsearch"]
        text += "\n\n" + PAIRED + "\n"
        text += table(titles, {name: [mean_and_error(ahead(name, *at)) for at in columns] for name in others})
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


HEADER = """# Search methods on simulated studies

`python benchmarks/search.py --seeds {seeds} --first-seed {first}`

Volume dominated by the trials completed within 40 and 120 trainings' worth of epochs, over the volume of the best known
frontier; mean and standard deviation over {seeds} seeds, each on a variant of the benchmark of its own; {slots}
asynchronous slots. `parametric`: formulas over real students' GFLOPs, see `benchmarks/parametric.py`. `camvid`: a
Gaussian process through the curves of a study on CamVid, see `benchmarks/landscapes/camvid.yaml`. All methods start
with the space's defaults. `TPE + ASHA on mIoU` has kdsearch's rungs, Ray's scheduler those that it comes with.
"""

PAIRED = """How far kdsearch is ahead: mean difference on the same variants of the benchmark, and its standard error.
"""


if __name__ == "__main__":
    main()
