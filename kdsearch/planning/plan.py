"""The plan of a study: measure a few of its trials, and estimate the cost of all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kdsearch.config.networks import network_name
from kdsearch.config.space.search_space import Sample, SearchSpace
from kdsearch.config.trial import TrialConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.data.registry import open_reader
from kdsearch.engine.cluster import Node, check_batches, check_share, trials_that_fit
from kdsearch.engine.messages import Placement
from kdsearch.models.cost import network_cost
from kdsearch.planning.disk_usage import disk_usage
from kdsearch.planning.estimate import FRONTIER, StudySetup, TimeModel, full_seconds, seconds_alone
from kdsearch.planning.measure import Measurement, random_store
from kdsearch.planning.measurement_jobs import MeasurementJob, run_jobs
from kdsearch.planning.representatives import draw, representatives
from kdsearch.planning.result import Plan, PlanRow
from kdsearch.planning.totals import add_totals
from kdsearch.search.costs import check_space
from kdsearch.train.teacher import teacher_trial

FLOPS = {"cpu": 2e10, "cuda": 5e12}
"""Lower bounds of the operations per second of a step on a core and on a GPU, to choose the number of timed images."""
STEP_S = 3.0
"""Seconds of a timed step: where the whole batch would probably take longer, fewer images are timed."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class PlanRequest:
    """The options of a plan beside its space; `seconds` bounds the whole measurement, `seconds_per_trial` one trial."""

    workers_per_trial: int = 1
    gpus_per_worker: float | None = None
    max_concurrent: int | None = None
    confirm: bool = True
    storage: Path = Path("runs")
    seconds: float = 300.0
    seconds_per_trial: float = 120.0


@dataclass(frozen=True)
class _Timed:
    """One trial with its job and its measurement, or the reason why there is none."""

    name: str
    trial: TrialConfig
    gflops: float
    job: MeasurementJob
    result: Measurement | str


def make_plan(space: SearchSpace, request: PlanRequest, say: Say = lambda part: None) -> Plan:
    """Measure trials of the space and estimate the cost of its study; `say` receives the part in progress.

    Raises `UserError` for a space that could not be trained either.
    """
    check_share(request.gpus_per_worker)
    check_batches(space, request.workers_per_trial)
    config = space.default().trial
    reader = open_reader(config.data)
    images = {split: len(reader.keys(split)) for split in ("train", "val")}
    on_gpu = torch.cuda.is_available()
    check_space(space, reader.info, 1 if on_gpu else request.workers_per_trial)
    setup = _setup(space, request, images, on_gpu)
    drawn = draw(space, lambda trial: network_cost(trial.student, reader.info, config.data.size).to_dict())
    plan = Plan(
        space.name, reader.info.name, images, config.data.size, config.data.crop or config.data.size,
        torch.cuda.get_device_name() if on_gpu else f"{os.cpu_count()} CPU cores, no GPU",
        setup.slots, setup.gpus * setup.ranks, setup.ranks, space.search.trials,
    )  # fmt: skip
    timed, teacher = _measure(plan, space, request, setup, representatives(drawn), reader.info, say)
    model = TimeModel(setup)
    for each in timed:
        if isinstance(each.result, Measurement):
            model.add(each.trial, each.gflops, each.result)
    plan.rows = [_row(each, model) for each in timed if each.name != "student" or isinstance(each.result, Measurement)]
    teacher_s = None
    if teacher is not None and isinstance(teacher.result, Measurement):
        # In a study the teacher has the threads of all slots; they are assumed to share the work evenly.
        teacher_s = seconds_alone(setup, teacher.trial, teacher.result) / (1 if on_gpu else setup.slots)
    elif teacher is not None:
        plan.warnings.append(f"The estimate lacks the teacher's own training: {teacher.result}.")
    add_totals(plan, space, model, drawn, teacher_s, request.confirm, on_gpu)
    return plan


def _setup(space: SearchSpace, request: PlanRequest, images: dict[str, int], on_gpu: bool) -> StudySetup:
    """Concurrent trials and their share of the machine: as requested, else as many as this machine holds."""
    ranks = request.workers_per_trial
    gpus = request.gpus_per_worker if request.gpus_per_worker is not None else float(on_gpu)
    node = Node(float(os.cpu_count() or 1), float(torch.cuda.device_count()), 0.7 * _free_memory())
    slots = request.max_concurrent or max(1, trials_that_fit(Placement(ranks, 1.0, gpus), [node]))
    return StudySetup(images["train"], images["val"], ranks, min(slots, space.search.trials), gpus)


def _measure(
    plan: Plan, space: SearchSpace, request: PlanRequest, setup: StudySetup,
    chosen: Sequence[tuple[str, Sample, float]], info: DatasetInfo, say: Say,
) -> tuple[list[_Timed], _Timed | None]:  # fmt: skip
    """The measurements of the chosen trials and of the teacher; the disk usage goes into the plan."""
    config = space.default().trial
    trials = [(name, sample.trial, gflops) for name, sample, gflops in chosen]
    jobs = [_job(f"{name}: {network_name(trial.student)}", trial, info, setup) for name, trial, _ in trials]
    teacher = None
    if config.teacher is not None and config.teacher.checkpoint is None and space.distils():
        teacher = teacher_trial(config)
        trials.insert(1, ("teacher", teacher, 0.0))  # early: time may run out
        jobs.insert(1, _job("the teacher", teacher, info, setup))
    with tempfile.TemporaryDirectory(prefix="kdsearch-plan-") as folder:
        scratch = Path(folder)
        store = random_store(scratch / "store", info, config.data.size, max(job.images for job in jobs))
        limits = request.seconds_per_trial, request.seconds
        results = [result for _, result in run_jobs(jobs, store.path, scratch, *limits, say)]
        plan.disk, plan.disk_notes = disk_usage(space, store, plan.images, request.storage, setup.slots, FRONTIER)
    timed = [_Timed(*trial, job, result) for trial, job, result in zip(trials, jobs, results, strict=True)]
    return timed, None if teacher is None else timed.pop(1)


def _job(name: str, trial: TrialConfig, info: DatasetInfo, setup: StudySetup) -> MeasurementJob:
    batch = trial.train.batch_size // setup.ranks
    return MeasurementJob(name, trial.model_dump_json(), _images_to_time(trial, info, batch), batch)


def _images_to_time(config: TrialConfig, info: DatasetInfo, batch: int) -> int:
    """Images of a timed step: the batch, or fewer where the step would take long; batch norm needs two."""
    size = config.data.crop or config.data.size
    flops = 3e9 * network_cost(config.student, info, size).gflops
    if config.teacher is not None and config.distill:
        flops += 1e9 * network_cost(config.teacher.network(), info, size).gflops
    affordable = int(STEP_S * FLOPS["cuda" if torch.cuda.is_available() else "cpu"] / flops)
    return min(batch, max(2, affordable))


def _row(timed: _Timed, model: TimeModel) -> PlanRow:
    trial, gflops, job, result = timed.trial, timed.gflops, timed.job, timed.result
    row = PlanRow(timed.name, network_name(trial.student), list(trial.distill), gflops, job.batch, job.images)
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
        f"terms.{term}": sum(model.terms[term]) / len(model.terms[term]) * model.setup.sharing / image["student"]
        for term in trial.distill if term in model.terms
    }  # fmt: skip
    row.epoch_s = model.epoch(trial, gflops)
    row.val_share = model.setup.val * image["val"] / model.setup.ranks / row.epoch_s
    row.full_s = full_seconds(model, trial, gflops)
    return row


def _free_memory() -> float:
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
