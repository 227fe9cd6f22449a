"""Students of a live and of a cached teacher, trained side by side, for `teacher_cache.py`.

All trainings of one seed start from the same weights and see the same views, so that a live and a cached teacher are
compared in pairs. Every finished training is kept in the storage; what was cut off goes on where it ended.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch.nn import functional as F

from kdsearch.compat import ensure_torchvision
from kdsearch.config.space.ranges import Choice, Int, IntLog, Log, Range
from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.config.trial import TrialConfig
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.store.store import Store, build_store
from kdsearch.io.atomic import write_json
from kdsearch.io.digests import weights_digest
from kdsearch.io.run_folder import RunFolder
from kdsearch.models.seg_output import upsampled_classes
from kdsearch.models.weights import load_network
from kdsearch.train.resources import Resources
from kdsearch.train.standalone import teacher_weights
from kdsearch.train.teacher import teacher_trial
from kdsearch.train.teacher_cache.plan import CachePlan, plan_cache
from kdsearch.train.trial import Trial

TrialJob = tuple[str, str, str, str, str, dict[str, Any]]


def students(options: argparse.Namespace) -> list[str]:
    """Train what is not trained yet; the tables of all."""
    space = load_space(options.space, profile=options.profile, data=_data(options), overrides=_overrides(options))
    first = space.default().trial
    folder = RunFolder.at(options.storage, "teacher-cache")
    folder.create()
    store = build_store(first.data, folder.stores)
    weights = teacher_weights(first, store, folder, print)
    corners = [with_teacher(sample.trial, "taps") for _, sample in space.corners()]
    planned = plan_cache(corners, store, folder.teacher_maps, weights)
    print(planned.why, flush=True)
    assert planned.plan is not None
    configs = [first, *random_configs(space, options.configs - 1)]
    wanted = {
        f"{index} {how}": with_teacher(each, how) for index, each in enumerate(configs) for how in ("off", "taps")
    }
    for seed in range(options.seeds):
        wanted |= {f"seed {seed} {how}": with_teacher(first, how, seed) for how in ("off", "taps")}
    if options.ceiling:
        wanted |= {f"{index} other seed": with_teacher(each, "off", seed=1) for index, each in enumerate(configs)}
    miou = run_trials(wanted, store, weights, planned.plan, folder.path / "students.json", options.jobs)
    teacher = teacher_miou(first, store, weights)
    lines = [
        f"## Students on {first.data.name}\n",
        f"`{Path(options.space).name}`, {first.train.epochs} epochs; the teacher's mIoU is {teacher:.4f}; {planned.why}"
        ". "
        "One seed gives both teachers' students the same first weights and views.\n",
    ]
    lines += seeds_table(miou, options.seeds)
    lines += ranking_table(miou, configs, options.seeds)
    views = folder.path / f"views-{_key(first, store, weights)}.json"
    if not views.exists():
        write_json(views, views_table(first, store, weights, planned.plan))
    return [*lines, *json.loads(views.read_text())]


# ---- trainings -------------------------------------------------------------------------------------------------------


def run_trials(
    wanted: dict[str, TrialConfig], store: Store, weights: Path, plan: CachePlan, kept: Path, jobs: int
) -> dict[str, float]:
    """mIoU by label. Equal configurations are trained once; the file `kept` has those of earlier runs."""
    done: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
    keys = {label: _key(config, store, weights) for label, config in wanted.items()}
    todo: dict[str, TrialJob] = {}
    for label, config in wanted.items():
        if keys[label] not in done:
            job = (keys[label], label, config.model_dump_json(), str(store.path), str(weights), plan.to_json())
            todo.setdefault(keys[label], job)
    if todo:
        # One thread each: side by side they are quicker than one after the other on all cores.
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            for key, miou in pool.imap_unordered(train_student, todo.values()):
                done[key] = miou
                write_json(kept, done)
    return {label: done[key] for label, key in keys.items()}


def _key(config: TrialConfig, store: Store, weights: Path) -> str:
    """All that a training depends on."""
    content = f"{weights_digest(weights)} {store.fingerprint} {config.model_dump_json()}"
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def train_student(job: TrialJob) -> tuple[str, float]:
    """mIoU of one trained student."""
    key, label, config_json, store, weights, plan = job
    torch.set_num_threads(1)
    ensure_torchvision()
    config = TrialConfig.model_validate_json(config_json)
    trial = Trial(config, _resources(Path(store), Path(weights), CachePlan.from_json(plan)))
    assert config.teacher is not None
    assert (trial.cached is None) == (config.teacher.cache == "off"), f"{label} read the other teacher"
    for _ in range(config.train.epochs):
        trial.train_epoch()
    miou = trial.validate()["val/miou"]
    print(f"{label}: mIoU {miou:.4f}", flush=True)
    return key, miou


def _resources(store: Path, weights: Path, plan: CachePlan) -> Resources:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Resources(store, weights, device, cache_plan=plan, log=lambda line: None)


def with_teacher(config: TrialConfig, cache: str, seed: int = 0) -> TrialConfig:
    assert config.teacher is not None
    teacher = config.teacher.model_copy(update={"cache": cache})
    return config.model_copy(update={"train": config.train.model_copy(update={"seed": seed}), "teacher": teacher})


def random_configs(space: SearchSpace, count: int) -> list[TrialConfig]:
    """Random configurations of the space with a term, the same in every run."""
    rng = np.random.default_rng(0)

    def draw(_: str, domain: Range) -> Any:
        if isinstance(domain, Choice):
            return domain.options[int(rng.integers(len(domain.options)))]
        logarithmic = isinstance(domain, Log | IntLog)
        low, high = (np.log(end) if logarithmic else end for end in (domain.low, domain.high))
        value = float(rng.uniform(low, high))
        value = float(np.exp(value)) if logarithmic else value
        return int(np.clip(round(value), domain.low, domain.high)) if isinstance(domain, Int | IntLog) else value

    found: list[TrialConfig] = []
    while len(found) < count:
        trial = space.sample(draw).trial
        if trial.distill:
            found.append(trial)
    return found


def _data(options: argparse.Namespace) -> tuple[str, str] | None:
    return None if options.data == "scenes" else ("camvid", options.data)


def _overrides(options: argparse.Namespace) -> list[str]:
    found = list(options.overrides)
    if options.weights:
        found += [f"{place}.encoder_weights={options.weights}" for place in ("teacher", "student[pspnet]")]
    if options.epochs:
        found.append(f"train.epochs={options.epochs}")
    return found


# ---- tables ----------------------------------------------------------------------------------------------------------


def seeds_table(miou: dict[str, float], seeds: int) -> list[str]:
    """The first configuration with each seed under both teachers."""
    lines = ["| teacher | mIoU of each seed | mean | standard deviation |", "|---|---|---|---|"]
    live, kept = ([miou[f"seed {seed} {how}"] for seed in range(seeds)] for how in ("off", "taps"))
    for name, values in (("live", live), ("cached", kept)):
        lines.append(f"| {name} | {' '.join(f'{v:.4f}' for v in values)} | {_mean(values)} |")
    return [*lines, f"\nCached minus live, in pairs: {difference(live, kept)}.\n"]


def ranking_table(miou: dict[str, float], configs: Sequence[TrialConfig], seeds: int) -> list[str]:
    """Each configuration under both teachers, and how alike they rank them; the ceiling, where it was trained."""
    columns = {"live": "off", "cached": "taps", "live, another seed": "other seed"}
    values = {
        name: [miou[f"{index} {how}"] for index in range(len(configs))]
        for name, how in columns.items() if f"0 {how}" in miou
    }  # fmt: skip
    lines = [f"| configuration | {' | '.join(values)} |", "|---" * (1 + len(values)) + "|"]
    for config, *row in zip(configs, *values.values(), strict=True):
        lines.append(f"| {_described(config)} | {' | '.join(f'{value:.4f}' for value in row)} |")
    live, kept, other = values["live"], values["cached"], values.get("live, another seed")
    lines.append(f"\nCached minus live, in pairs: {difference(live, kept)}.\n")
    text = f"Kendall's tau over {len(configs)} configurations: **live and cached {tau(live, kept):.2f}**"
    if other is not None:
        text += f"; live and live with another seed {tau(live, other):.2f}; cached and that {tau(kept, other):.2f}"
    noise = math.sqrt(
        statistics.mean(
            statistics.variance(miou[f"seed {seed} {how}"] for seed in range(seeds)) for how in ("off", "taps")
        )
    )
    middle, spread = ceiling([(a + b) / 2 for a, b in zip(live, kept, strict=True)], noise)
    text += (
        f". A seed moves the first configuration's mIoU by {noise:.4f} (standard deviation); with that noise on each "
        "configuration's mean of live and cached, two runs that differ in nothing but the seed have a tau of "
        f"{middle:.2f}, standard deviation {spread:.2f}.\n"
    )
    return [*lines, text]


def tau(a: Sequence[float], b: Sequence[float]) -> float:
    return float(kendalltau(a, b).statistic)


def ceiling(means: Sequence[float], noise: float) -> tuple[float, float]:
    """Mean and standard deviation of Kendall's tau between two runs of configurations with these true values."""
    rng = np.random.default_rng(0)
    runs = np.array(means) + noise * rng.standard_normal((1000, 2, len(means)))
    taus = [tau(a, b) for a, b in runs]
    return statistics.mean(taus), statistics.stdev(taus)


def difference(a: Sequence[float], b: Sequence[float]) -> str:
    apart = [y - x for x, y in zip(a, b, strict=True)]
    return f"{statistics.mean(apart):+.4f} mIoU, standard error {statistics.stdev(apart) / math.sqrt(len(apart)):.4f}"


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.4f} | {statistics.stdev(values):.4f}"


def _described(config: TrialConfig) -> str:
    terms = ", ".join(f"{name} {term.weight:.3g}" for name, term in config.distill.items())
    return f"{config.student.arch} {config.student.encoder}, {terms}, lr {config.train.lr:.1e}"


# ---- predictions of the teachers -------------------------------------------------------------------------------------


def teacher_miou(config: TrialConfig, store: Store, weights: Path) -> float:
    trial = Trial(teacher_trial(config), Resources(store.path))
    load_network(trial.module.student, weights)
    return trial.validate()["val/miou"]


def views_table(config: TrialConfig, store: Store, weights: Path, plan: CachePlan) -> list[str]:
    """On an epoch's views: the live teacher, the live one without photometric jitter, and the cached one.

    Places within an eighth of the view's height or width are its border, where a live teacher lacks the surroundings.
    """
    plain = config.data.model_copy(update={"augment": config.data.augment.model_copy(update={"jitter": 0.0})})
    configs = {
        "live": with_teacher(config, "off"),
        "live, views without jitter": with_teacher(config.model_copy(update={"data": plain}), "off"),
        "cached": with_teacher(config, "taps"),
    }
    trials = {name: Trial(each, _resources(store.path, weights, plan)) for name, each in configs.items()}
    sums = {name: {where: np.zeros(4) for where in ("border", "inside")} for name in trials}
    for batches in zip(*(trial.train_batches.train(0) for trial in trials.values()), strict=True):
        label_bhw = batches[0].label_bhw
        log_probs = {}
        for (name, trial), batch in zip(trials.items(), batches, strict=True):
            output = trial.teacher_output(batch)
            assert output is not None
            logits = F.interpolate(output.logits, label_bhw.shape[1:], mode="bilinear", align_corners=True)
            log_probs[name] = logits.log_softmax(1)
        classes = {name: upsampled_classes(each, label_bhw.shape[1:]) for name, each in log_probs.items()}
        height, width = label_bhw.shape[1:]
        inside = torch.zeros_like(label_bhw, dtype=torch.bool)
        inside[:, height // 8 : height - height // 8, width // 8 : width - width // 8] = True
        known = label_bhw != IGNORE_INDEX
        for name, each in log_probs.items():
            nats = (log_probs["live"].exp() * (log_probs["live"] - each)).sum(1)
            for where, chosen in (("border", known & ~inside), ("inside", known & inside)):
                right, same = classes[name] == label_bhw, classes[name] == classes["live"]
                sums[name][where] += [float(value[chosen].sum()) for value in (known, right, same, nats)]
    lines = [
        "Predictions of the teachers on an epoch's views, at labelled pixels; the border is an eighth of a view's "
        "height or width at each side.\n",
        "| teacher | right, border | right, inside | class of the live one, border | inside | KL from the live one, "
        "nats, border | inside |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, by_place in sums.items():
        border, inner = (by_place[where][1:] / by_place[where][0] for where in ("border", "inside"))
        cells = (
            f"{100 * border[0]:.1f} %", f"{100 * inner[0]:.1f} %", f"{100 * border[1]:.1f} %",
            f"{100 * inner[1]:.1f} %", f"{border[2]:.3f}", f"{inner[2]:.3f}",
        )  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
