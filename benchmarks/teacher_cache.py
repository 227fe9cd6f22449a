"""What a cached teacher saves in each training step, and what it costs in the student's mIoU.

    python benchmarks/teacher_cache.py --quick --out benchmarks/results/teacher_cache.md
    python benchmarks/teacher_cache.py --data /data/camvid --weights /weights --out ...    # students too: hours on CPUs

Steps: seconds of a whole training step (batch, teacher, student, terms, optimiser) without distillation, with a live
teacher and with its cached maps, of several pairs of networks, alternating in one run. Students: on real CamVid, the
mIoU of one configuration with several seeds, and of several configurations, under the live and the cached teacher;
Kendall's tau says whether both put the configurations in the same order, beside the tau of the live teacher with
another seed.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdsearch.compat import ensure_torchvision
from kdsearch.config.ranges import Choice, Int, IntLog, Log, Range
from kdsearch.config.space import SearchSpace, load_space
from kdsearch.config.trial import TrialConfig

GOAL = 1.15
"""The most that a step with cached maps may cost, in steps without distillation."""

SMP_STUDENT = {"arch": "pspnet", "encoder": "mobilenet_v2"}
PAIRS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (
        {"arch": "deeplabv3plus", "encoder": "resnet101", "options": {"encoder_output_stride": 16}},
        SMP_STUDENT,
        {"kd": {}},
    ),
    (
        {"arch": "deeplabv3plus", "encoder": "resnet101", "options": {"encoder_output_stride": 16}},
        SMP_STUDENT,
        {"kd": {}, "cwd_feature": {"tap": "head"}},
    ),
    (
        {
            "arch": "two_branch",
            "cnn": {"arch": "deeplabv3plus", "encoder": "resnet50", "options": {"encoder_output_stride": 16}},
            "transformer": {"arch": "segformer", "encoder": "mit_b2"},
        },
        {"arch": "fpn", "encoder": "resnet18"},
        {"kd": {}, "stc_pair": {}},
    ),
    (
        {"arch": "clnet", "encoder": "mit_b4", "shared_encoder": False},
        {"arch": "clnet", "encoder": "mit_b0", "width": 32},
        {"dsrd": {}, "clfd": {}},
    ),
    (
        {"arch": "clnet", "encoder": "mit_b4", "shared_encoder": False},
        {"arch": "segformer", "encoder": "mit_b0"},
        {"dsrd": {"detail_source": "derived"}, "cwd": {}},
    ),
]


# ---- steps -----------------------------------------------------------------------------------------------------------


class Form:
    """One trial that is stepped again and again."""

    def __init__(self, config: TrialConfig, resources: Any) -> None:
        from kdsearch.train.trial import Trial

        self.trial = Trial(config, resources)
        self.trial.wrapped.train()
        self.device = resources.device
        self.batches = self._batches()

    def _batches(self) -> Iterator[Any]:
        for epoch in itertools.count():
            yield from self.trial.train_batches.train(epoch)

    def step(self) -> float:
        started = self._now()
        self.trial._step(next(self.batches), None)
        return self._now() - started

    def teacher(self) -> float:
        """The share of the teacher alone, live or cached."""
        batch = next(self.batches)
        started = self._now()
        self.trial.teacher_output(batch)
        return self._now() - started

    def _now(self) -> float:
        """CPU time of the one thread on a CPU, which other programs do not lengthen by much; wall time on a GPU."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def steps(options: argparse.Namespace, scratch: Path) -> list[str]:
    from safetensors.torch import save_file

    from kdsearch import models
    from kdsearch.data.store import build_store
    from kdsearch.train.maps_plan import plan_maps
    from kdsearch.train.resources import Resources

    device = torch.device(options.device)
    lines = [STEPS_HEADER]
    met, read = [], []
    for number, (teacher, student, distill) in enumerate(PAIRS):
        height, width = options.size
        data = {
            "name": "scenes", "size": [height, width], "frames": "views",
            "options": {"train": 2 * options.batch, "val": 1, "height": height, "width": width},
        }  # fmt: skip
        train = {"batch_size": options.batch, "epochs": 10**6}
        base = {"data": data, "student": student, "train": train}
        configs = {
            "plain": TrialConfig.model_validate(base),
            "live": TrialConfig.model_validate(base | {"teacher": teacher, "distill": distill}),
            "cached": TrialConfig.model_validate(base | {"teacher": teacher | {"cache": "taps"}, "distill": distill}),
        }
        store = build_store(configs["plain"].data, scratch / "data")
        weights = scratch / f"teacher{number}.safetensors"
        torch.manual_seed(0)
        assert configs["live"].teacher is not None
        save_file(models.build(configs["live"].teacher.network(), store.info).state_dict(), weights)
        plan = plan_maps([configs["cached"]], store, scratch / "maps", weights).plan
        assert plan is not None
        shared = Resources(store.path, weights, device, maps_plan=plan, say=lambda line: None)
        forms = {name: Form(config, shared) for name, config in configs.items()}
        taken: dict[str, list[float]] = {name: [] for name in [*forms, "asking", "reading"]}
        for repeat in range(options.repeats + 1):
            for name, form in forms.items():
                seconds = form.step()
                if repeat:
                    taken[name].append(seconds)
            taken["asking"].append(forms["live"].teacher())
            taken["reading"].append(forms["cached"].teacher())
        ms = {name: 1e3 * statistics.median(values) for name, values in taken.items()}
        image = plan.nbytes(configs["cached"], store) / len(store.split("train")) / 1e6
        ratio = ms["cached"] / ms["plain"]
        alone = (ms["plain"] + ms["reading"]) / ms["plain"]
        met.append(ratio <= GOAL)
        read.append(alone <= GOAL)
        line = (
            f"| {_name(teacher)} | {_name(student)} | {', '.join(distill)} | {ms['plain']:.0f} | {ms['live']:.0f} "
            f"| {ms['cached']:.0f} | {ms['asking']:.0f} | {ms['reading']:.1f} | {ms['live'] / ms['plain']:.2f} "
            f"| **{ratio:.2f}** | {alone:.2f} | {image:.2f} |"
        )
        print(line, flush=True)
        lines.append(line)
    lines.append(
        f"\nGoal, a step with cached maps in at most {GOAL} plain steps: met by {sum(met)} of {len(met)} pairs, terms "
        f"included; by {sum(read)} of {len(read)} when only reading the maps is counted."
    )
    return lines


def _name(network: dict[str, Any]) -> str:
    if network["arch"] == "two_branch":
        return f"{_name(network['cnn'])} + {_name(network['transformer'])}"
    return f"{network['arch']} {network['encoder']}"


STEPS_HEADER = """## Seconds a training step

`plain` trains the student without distillation; `asking` and `reading` are what the live and the cached teacher alone
take of a step. What cached steps cost beyond plain and reading is the terms' own forward and backward pass.

| teacher | student | terms | plain, ms | live, ms | cached, ms | asking, ms | reading, ms | live / plain \
| cached / plain | (plain + reading) / plain | MB an image |
|---|---|---|---|---|---|---|---|---|---|---|---|"""


# ---- students --------------------------------------------------------------------------------------------------------


def train_student(job: tuple[str, str, str, str, dict[str, Any]]) -> float:
    """mIoU of one trained student."""
    label, config_json, store, weights, plan = job
    torch.set_num_threads(1)
    ensure_torchvision()
    from kdsearch.train.maps_plan import MapsPlan
    from kdsearch.train.resources import Resources
    from kdsearch.train.trial import Trial

    config = TrialConfig.model_validate_json(config_json)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resources = Resources(Path(store), Path(weights), device, maps_plan=MapsPlan.from_json(plan), say=lambda line: None)
    trial = Trial(config, resources)
    assert config.teacher is not None
    assert (trial.cached is None) == (config.teacher.cache == "off"), f"{label} read the other teacher"
    for _ in range(config.train.epochs):
        trial.train_epoch()
    miou = trial.validate()["val/miou"]
    print(f"{label}: mIoU {miou:.4f}", flush=True)
    return miou


def students(options: argparse.Namespace) -> list[str]:
    from scipy.stats import kendalltau

    from kdsearch.data.store import build_store
    from kdsearch.run_folder import RunFolder
    from kdsearch.train.alone import teacher_weights
    from kdsearch.train.maps_plan import plan_maps

    space = load_space(options.space, profile=options.profile, data=_data(options), overrides=_overrides(options))
    first = space.default().trial
    folder = RunFolder.at(options.storage, "teacher-cache")
    store = build_store(first.data, folder.stores)
    weights = teacher_weights(first, store, folder, print)
    corners = [_with(sample.trial, cache="taps") for _, sample in space.corners()]
    planned = plan_maps(corners, store, folder.teacher_maps, weights)
    print(planned.why)
    assert planned.plan is not None
    configs = _samples(space, options.configs)
    wanted: list[tuple[str, TrialConfig]] = []
    for seed in range(options.seeds):
        wanted += [(f"seed {seed} {how}", _with(first, how, seed)) for how in ("off", "taps")]
    for index, config in enumerate(configs):
        wanted += [(f"config {index} {how}", _with(config, how)) for how in ("off", "taps")]
        wanted.append((f"config {index} other seed", _with(config, "off", seed=1)))
    jobs = [
        (label, config.model_dump_json(), str(store.path), str(weights), planned.plan.to_json())
        for label, config in wanted
    ]
    with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=1) as pool:
        miou = dict(zip((label for label, _ in wanted), pool.map(train_student, jobs, chunksize=1), strict=True))
    lines = [
        STUDENTS_HEADER.format(
            **vars(options), why=planned.why, dataset=first.data.name, total_epochs=first.train.epochs
        )
    ]
    live, kept = ([miou[f"seed {seed} {how}"] for seed in range(options.seeds)] for how in ("off", "taps"))
    for name, values in (("live", live), ("cached", kept)):
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        lines.append(
            f"| {name} | {' '.join(f'{v:.4f}' for v in values)} | {statistics.mean(values):.4f} | {spread:.4f} |"
        )
    lines.append(f"\nCached minus live: {statistics.mean(kept) - statistics.mean(live):+.4f} mIoU.\n")
    lines += ["| configuration | live | cached | live, another seed |", "|---|---|---|---|"]
    columns = {how: [miou[f"config {i} {how}"] for i in range(len(configs))] for how in ("off", "taps", "other seed")}
    for index in range(len(configs)):
        lines.append(f"| {index} | {' | '.join(f'{values[index]:.4f}' for values in columns.values())} |")
    taus = {how: kendalltau(columns["off"], columns[how]).statistic for how in ("taps", "other seed")}
    lines.append(
        f"\nKendall's tau over {len(configs)} configurations: live and cached {taus['taps']:.2f}; live and live with "
        f"another seed {taus['other seed']:.2f}."
    )
    return lines


STUDENTS_HEADER = """## Students on {dataset}

`{space}`, profile `{profile}`, {total_epochs} epochs; {why}.

| teacher | mIoU of each seed | mean | standard deviation |
|---|---|---|---|"""


def _with(config: TrialConfig, cache: str, seed: int | None = None) -> TrialConfig:
    assert config.teacher is not None
    train = config.train if seed is None else config.train.model_copy(update={"seed": seed})
    teacher = config.teacher.model_copy(update={"cache": cache})
    return config.model_copy(update={"train": train, "teacher": teacher})


def _samples(space: SearchSpace, count: int) -> list[TrialConfig]:
    """Random configurations of the space, the same in every run."""
    rng = np.random.default_rng(0)

    def draw(_: str, domain: Range) -> Any:
        if isinstance(domain, Choice):
            return domain.options[int(rng.integers(len(domain.options)))]
        logarithmic = isinstance(domain, Log | IntLog)
        low, high = (np.log(end) if logarithmic else end for end in (domain.low, domain.high))
        value = float(rng.uniform(low, high))
        value = float(np.exp(value)) if logarithmic else value
        return int(np.clip(round(value), domain.low, domain.high)) if isinstance(domain, Int | IntLog) else value

    found = []
    while len(found) < count:
        trial = space.sample(draw).trial
        if trial.distill:
            found.append(trial)
    return found


def _data(options: argparse.Namespace) -> tuple[str, str] | None:
    return None if options.data in (None, "scenes") else ("camvid", options.data)


def _overrides(options: argparse.Namespace) -> list[str]:
    found = list(options.overrides)
    if options.weights:
        places = ("teacher", "student[pspnet]", "student[deeplabv3plus]")
        found += [f"{place}.encoder_weights={options.weights}" for place in places]
    if options.epochs:
        found.append(f"train.epochs={options.epochs}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="sizes for one CPU core: 96x128, batch 4")
    parser.add_argument("--size", type=int, nargs=2, help="height and width of the steps' images")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-steps", action="store_true", help="students alone")
    parser.add_argument("--data", help="folder of CamVid: train students on it ('scenes': on what the profile names)")
    parser.add_argument("--weights", help="file or folder of ImageNet weights of mobilenet_v2")
    parser.add_argument("--space", default="afdcd", help="where the students' configurations come from")
    parser.add_argument("--profile", default="small")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="K=V")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--configs", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, with one thread each")
    parser.add_argument("--storage", default="runs", help="keeps the data store, the teacher and its maps")
    parser.add_argument("--out", type=Path, help="write the tables to this file")
    options = parser.parse_args()
    options.size = options.size or ([96, 128] if options.quick else [480, 640])
    options.batch = options.batch or (4 if options.quick else 8)
    ensure_torchvision()
    if options.device == "cpu":
        torch.set_num_threads(1)
    device = (
        f"{platform.machine()} CPU, CPU time of one thread" if options.device == "cpu" else torch.cuda.get_device_name()
    )
    height, width = options.size
    lines = [f"# A cached teacher\n\n{device}, torch {torch.__version__}.\n"]
    if not options.no_steps:
        lines[0] += f"Steps: {height}x{width}, batch {options.batch}, fp32, median of {options.repeats}.\n"
        with tempfile.TemporaryDirectory(prefix="teacher-cache-") as scratch:
            lines += steps(options, Path(scratch))
    if options.data:
        lines += ["", *students(options)]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
