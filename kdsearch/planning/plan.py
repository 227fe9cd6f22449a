"""The plan of a study: a few of its trials measured, and the estimates put together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from kdsearch.config.space.search_space import SearchSpace
from kdsearch.config.trial import TrialConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.data.registry import open_reader
from kdsearch.engine.cluster import Node, check_batches, trials_that_fit
from kdsearch.engine.messages import Placement
from kdsearch.models.cost import network_cost
from kdsearch.planning import disk, estimate
from kdsearch.planning.choose import draw, representatives
from kdsearch.planning.measure import Measured, drawn_store
from kdsearch.planning.probe import TrialJob, run_jobs
from kdsearch.planning.summary import Plan, Row, summarise
from kdsearch.train.teacher import teacher_trial

FLOPS = {"cpu": 2e10, "cuda": 5e12}
"""Operations a second that a step reaches at least on a core and on a GPU: only to choose how many images to time."""
STEP_S = 3.0
"""A step is timed on fewer images than it has where all of them would probably take longer."""


@dataclass(frozen=True)
class Wishes:
    """What the command line says beside the space; seconds for measuring: of all, and of one trial."""

    ranks: int
    gpus_per_rank: float | None
    slots: int | None
    confirm: bool
    storage: Path
    seconds: float
    limit: float


def make_plan(space: SearchSpace, wishes: Wishes, say: Callable[[str], None]) -> Plan:
    """Measure, and put the estimates together. Raises `UserError` for what could not be trained either."""
    check_batches(space, wishes.ranks)
    config = space.default().trial
    reader = open_reader(config.data)
    images = {split: len(reader.keys(split)) for split in ("train", "val")}
    info = reader.info
    on_gpu = torch.cuda.is_available()
    setting = _setting(space, wishes, images, on_gpu)

    def costs(trial: TrialConfig) -> dict[str, float]:
        cost = network_cost(trial.student, info, config.data.size)
        return {"gflops": cost.gflops, "params_m": cost.params_m}

    def job(name: str, trial: TrialConfig) -> TrialJob:
        timed = _images_to_time(trial, info, trial.train.batch_size // setting.ranks, on_gpu)
        return TrialJob(name, trial.model_dump_json(), timed, trial.train.batch_size // setting.ranks)

    drawn = draw(space, costs)
    chosen = representatives(drawn)
    jobs = [job(f"{name}: {_network(sample.trial)}", sample.trial) for name, sample, _ in chosen]
    alone = None
    if config.teacher is not None and config.teacher.checkpoint is None:
        alone = teacher_trial(config)
        jobs.insert(1, job("the teacher", alone))  # early: time may run out
    with tempfile.TemporaryDirectory(prefix="kdsearch-plan-") as folder:
        scratch = Path(folder)
        store = drawn_store(scratch / "store", info, config.data.size, max(job.images for job in jobs))
        results = [result for _, result in run_jobs(jobs, store.path, scratch, wishes.limit, wishes.seconds, say)]
        on_disk, disk_notes = disk.usage(space, store, images, wishes.storage, setting.slots, estimate.FRONTIER)

    plan = Plan(
        space.name, info.name, images, config.data.size, config.data.crop or config.data.size,
        torch.cuda.get_device_name() if on_gpu else f"{os.cpu_count()} CPU cores, no GPU",
        setting.slots, setting.gpus * setting.ranks, setting.ranks, space.search.trials,
        disk=on_disk, disk_notes=disk_notes,
    )  # fmt: skip
    teacher_s = None
    if alone is not None:
        jobs.pop(1)
        result = results.pop(1)
        if isinstance(result, Measured):
            # In a study it has the threads of all slots; they are taken to share it evenly.
            teacher_s = estimate.seconds_alone(setting, alone, result) / (1 if on_gpu else setting.slots)
        else:
            plan.warnings.append(f"The teacher's own training is not in the estimate: {result}.")
    model = estimate.Model(setting)
    for (_, sample, gflops), result in zip(chosen, results, strict=True):
        if isinstance(result, Measured):
            model.add(sample.trial, gflops, result)
    for (name, sample, gflops), job_, result in zip(chosen, jobs, results, strict=True):
        row = _row(name, sample.trial, gflops, job_, result, model)
        if row.name != "student" or not row.problem:
            plan.rows.append(row)
    summarise(plan, space, model, drawn, teacher_s, wishes.confirm, on_gpu)
    return plan


def _setting(space: SearchSpace, wishes: Wishes, images: dict[str, int], on_gpu: bool) -> estimate.Setting:
    """How many trials run at once, and on what: as the command line says, else as this machine holds them."""
    gpus = wishes.gpus_per_rank if wishes.gpus_per_rank is not None else float(on_gpu)
    node = Node(float(os.cpu_count() or 1), float(torch.cuda.device_count()), 0.7 * _free_memory())
    slots = wishes.slots or max(1, trials_that_fit(Placement(wishes.ranks, 1.0, gpus), [node]))
    return estimate.Setting(images["train"], images["val"], wishes.ranks, min(slots, space.search.trials), gpus)


def _row(
    name: str, trial: TrialConfig, gflops: float, job: TrialJob, result: Measured | str, model: estimate.Model
) -> Row:
    row = Row(name, _network(trial), list(trial.distill), gflops, job.batch, job.images)
    if isinstance(result, str):
        row.problem = result
        return row
    row.memory_gb = {part: size / 1e9 for part, size in result.memory.items()}
    row.waiting = result.waiting
    image = model.image(trial, gflops)
    seconds = image["student"] + image["teacher"] + image["terms"]
    row.step_s = seconds * row.batch
    row.shares = {part: image[part] / seconds for part in ("student", "teacher", "terms")}
    row.shares |= {
        f"terms.{term}": sum(model.terms[term]) / len(model.terms[term]) * model.setting.sharing / image["student"]
        for term in trial.distill if term in model.terms
    }  # fmt: skip
    row.epoch_s = model.epoch(trial, gflops)
    row.val_share = model.setting.val * image["val"] / model.setting.ranks / row.epoch_s
    row.full_s = estimate.full_seconds(model, trial, gflops)
    return row


def _network(trial: TrialConfig) -> str:
    return f"{trial.student.arch} {trial.student.encoder}"


def _images_to_time(config: TrialConfig, info: DatasetInfo, batch: int, on_gpu: bool) -> int:
    """Images of a timed step: all of the batch's, or fewer where the step would take long; batch norm wants two."""
    size = config.data.crop or config.data.size
    flops = 3e9 * network_cost(config.student, info, size).gflops
    if config.teacher is not None and config.distill:
        flops += 1e9 * network_cost(config.teacher.network(), info, size).gflops
    affordable = int(STEP_S * FLOPS["cuda" if on_gpu else "cpu"] / flops)
    return min(batch, max(2, affordable))


def _free_memory() -> float:
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
