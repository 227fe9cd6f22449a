"""What a study would cost, from a few measured steps. Nothing is started or kept: no Ray, no run folder."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.commands.answer import Answer
from kdsearch.commands.parser import Commands, add_command, add_json, add_space, add_storage, positive

if TYPE_CHECKING:
    from kdsearch.config.space import Sample, SearchSpace
    from kdsearch.config.trial import TrialConfig
    from kdsearch.data.info import DatasetInfo
    from kdsearch.search.plan.estimate import Model
    from kdsearch.search.plan.measure import Measured

ABOUT = """\
A few steps of the default, the cheapest and the dearest trials are timed; nothing is started or kept: no Ray, no run
folder. The options that 'kdsearch run' has too mean the same.
"""
LIMIT_S = 120.0
TOTAL_S = 300.0
FLOPS = {"cpu": 2e10, "cuda": 5e12}
"""Operations a second that a step reaches at least on a core and on a GPU: only to choose how many images to time."""
STEP_S = 3.0
"""A step is timed on fewer images than it has where all of them would probably take longer."""


def add_to(commands: Commands) -> None:
    command = add_command(
        commands, "plan", run, help="say what a study would cost: hours, disk, memory", about=ABOUT,
        examples=["plan clfd", "plan clfd --data mfnet=/data/MFNet --trials 50 --slots 8", "plan clfd --json"],
        failed="nothing could be measured",
    )  # fmt: skip
    add_space(command, "the demo profile is planned")
    add = command.add_argument
    add("--trials", metavar="N", type=positive, help="number of trials (default: what the space says)")
    add("--latency", metavar="DEVICE", help="mIoU against latency, measured on cpu, cpu:4 or cuda")
    add("--workers-per-trial", metavar="N", type=positive, default=1, help="DDP ranks of each trial (default: 1)")
    add("--gpus-per-worker", metavar="F", type=float, help="share of a GPU for each rank")
    add("--slots", metavar="N", type=positive, help="trials at a time (default: what this machine holds)")
    add("--no-confirm", action="store_true", help="without repeats and controls of the frontier")
    add_storage(command, "folder of all runs, whose disk is looked at (default: runs)")
    add("--seconds", metavar="S", type=float, default=TOTAL_S, help="time for measuring (default: %(default).0f)")
    add("--limit", metavar="S", type=float, default=LIMIT_S, help="time for one trial's (default: %(default).0f)")
    add_json(command, "the fields of kdsearch.search.plan.command.Plan; times in seconds")


def run(options: argparse.Namespace) -> Answer:
    from kdsearch.compat import ensure_torchvision

    ensure_torchvision()
    from rich.console import Console

    from kdsearch.requested import parse_data, requested_space
    from kdsearch.search.plan.report import print_plan

    errors = Console(stderr=True, highlight=False)
    trials = [] if options.trials is None else [f"search.trials={options.trials}"]
    space = requested_space(
        options.space, options.profile, [*options.overrides, *trials], parse_data(options.data),
        say=lambda line: errors.print(line, markup=False), latency=options.latency,
    )  # fmt: skip
    with errors.status("measuring") as status:
        plan = make_plan(space, options, lambda text: status.update(f"measuring {text}"))
    return Answer(asdict(plan), lambda: print_plan(plan), status=0 if plan.stages else 1)


@dataclass
class Row:
    """One measured trial: seconds of a step and of a full training, shares of a step, GB a rank."""

    name: str
    student: str
    terms: list[str]
    gflops: float
    batch: int
    images: int
    step_s: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    epoch_s: float = 0.0
    val_share: float = 0.0
    full_s: float = 0.0
    memory_gb: dict[str, float] = field(default_factory=dict)
    waiting: float = 1.0
    problem: str = ""


@dataclass
class Plan:
    """All that `kdsearch plan` says; times in seconds, `slot_s` and `wall_s` from least to most."""

    space: str
    data: str
    images: dict[str, int]
    size: tuple[int, int]
    crop: tuple[int, int]
    machine: str
    slots: int
    gpus_per_slot: float
    ranks: int
    trials: int
    rows: list[Row] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    cached: dict[str, Any] | None = None
    total: dict[str, Any] = field(default_factory=dict)
    teacher_share: float = 0.0
    disk: dict[str, float] = field(default_factory=dict)
    disk_notes: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_plan(space: SearchSpace, options: argparse.Namespace, say: Callable[[str], None]) -> Plan:
    """Measure, and put the estimates together. Raises `UserError` for what could not be trained either."""
    import torch

    from kdsearch import models
    from kdsearch.data.reader import open_reader
    from kdsearch.search.cluster import Node, check_batches, trials_that_fit
    from kdsearch.search.plan import disk, estimate
    from kdsearch.search.plan.choose import draw, representatives
    from kdsearch.search.plan.measure import Measured, drawn_store
    from kdsearch.search.plan.probe import Job, run_jobs
    from kdsearch.search.workers import Placement
    from kdsearch.train.teacher import teacher_trial

    ranks = options.workers_per_trial
    check_batches(space, ranks)
    config = space.default().trial
    reader = open_reader(config.data)
    images = {split: len(reader.keys(split)) for split in ("train", "val")}
    info = reader.info

    def costs(trial: TrialConfig) -> dict[str, float]:
        cost = models.cost(trial.student, info, config.data.size)
        return {"gflops": cost.gflops, "params_m": cost.params_m}

    on_gpu = torch.cuda.is_available()
    gpus = options.gpus_per_worker if options.gpus_per_worker is not None else float(on_gpu)
    node = Node(float(os.cpu_count() or 1), float(torch.cuda.device_count()), 0.7 * _free_memory())
    slots = options.slots or max(1, trials_that_fit(Placement(ranks, 1.0, gpus), [node]))
    slots = min(slots, space.search.trials)
    drawn = draw(space, costs)
    plan = Plan(
        space.name, info.name, images, config.data.size, config.data.crop or config.data.size,
        torch.cuda.get_device_name() if on_gpu else f"{os.cpu_count()} CPU cores, no GPU",
        slots, gpus * ranks, ranks, space.search.trials,
    )  # fmt: skip
    setting = estimate.Setting(images["train"], images["val"], ranks, slots, gpus)
    model = estimate.Model(setting)
    chosen = representatives(drawn)
    jobs, rows = [], []
    for name, sample, gflops in chosen:
        trial = sample.trial
        batch = trial.train.batch_size // ranks
        timed = _images_to_time(trial, info, batch, on_gpu)
        student = f"{trial.student.arch} {trial.student.encoder}"
        rows.append(Row(name, student, list(trial.distill), gflops, batch, timed))
        jobs.append(Job(f"{name}: {student}", trial.model_dump_json(), timed, batch))
    teacher = None
    if config.teacher is not None and config.teacher.checkpoint is None:
        alone = teacher_trial(config)
        batch = alone.train.batch_size // ranks
        timed = _images_to_time(alone, info, batch, on_gpu)
        teacher = Job("the teacher", alone.model_dump_json(), timed, batch)
        jobs.insert(1, teacher)
    teacher_s = None
    with tempfile.TemporaryDirectory(prefix="kdsearch-plan-") as folder:
        scratch = Path(folder)
        store = drawn_store(scratch / "store", info, config.data.size, max(job.images for job in jobs))
        kept = iter(zip(chosen, rows, strict=True))
        for job, result in run_jobs(jobs, store.path, scratch, options.limit, options.seconds, say):
            if job is teacher:
                if isinstance(result, Measured):
                    alone = teacher_trial(config)
                    of_teacher = estimate.Model(setting)
                    of_teacher.add(alone, 0.0, result)
                    # In a study it has the threads of all slots; they are taken to share it evenly.
                    teacher_s = estimate.full_seconds(of_teacher, alone, 0.0) / (1 if on_gpu else slots)
                else:
                    plan.warnings.append(f"The teacher's own training is not in the estimate: {result}.")
                continue
            (_, sample, gflops), row = next(kept)
            if isinstance(result, Measured):
                model.add(sample.trial, gflops, result)
                row.memory_gb, row.waiting = _memory(result), result.waiting
            else:
                row.problem = result
        plan.rows = rows
        for (_, sample, gflops), row in zip(chosen, rows, strict=True):
            if not row.problem:
                _fill(row, sample.trial, gflops, model)
        plan.disk, plan.disk_notes = disk.usage(space, store, images, Path(options.storage), slots, estimate.FRONTIER)
    plan.rows = [row for row in rows if row.name != "student" or not row.problem]
    _summarise(plan, space, model, drawn, teacher_s, not options.no_confirm, on_gpu)
    return plan


def _summarise(
    plan: Plan,
    space: SearchSpace,
    model: Model,
    drawn: list[tuple[Sample, float]],
    teacher_s: float | None,
    confirm: bool,
    on_gpu: bool,
) -> None:
    from kdsearch.models.latency import SECONDS
    from kdsearch.search.latencies import ROUNDS
    from kdsearch.search.plan import estimate
    from kdsearch.search.plan.report import duration
    from kdsearch.search.students import students

    for row in plan.rows:
        _warn(plan, row)
    unmeasured = sorted({name for sample, _ in drawn for name in sample.trial.distill} - set(model.terms))
    if not model.students:
        plan.warnings.append("Nothing could be measured, so there is no estimate; give it more time with --limit.")
        return
    if unmeasured:
        plan.warnings.append(f"Without the time of {', '.join(unmeasured)}: no trial that has them was measured.")
    found = estimate.stages(space, model, drawn, teacher_s, confirm)
    plan.stages = [asdict(stage) for stage in found]
    slot = [sum(stage.slot_s[end] for stage in found) for end in (0, 1)]
    wall = [sum(stage.wall_s[end] for stage in found) for end in (0, 1)]
    last = found[-1]
    plan.total = {
        "slot_s": slot,
        "wall_s": wall,
        "gpu_s": [plan.gpus_per_slot * seconds for seconds in slot] if on_gpu or plan.gpus_per_slot else None,
        "confirm_share": last.slot_s[1] / slot[1] if last.name == "confirm" else 0.0,
    }
    parts = [model.image(sample.trial, gflops) for sample, gflops in drawn if sample.trial.distill]
    if parts:
        steps = sum(part["student"] + part["teacher"] + part["terms"] for part in parts)
        plan.teacher_share = sum(part["teacher"] for part in parts) / steps
        default = drawn[0][0].trial.teacher
        if default is not None and default.cache == "off":
            plan.cached = asdict(estimate.search_stage(space, model, drawn, True, "search with cached maps"))
    fewer = [row for row in plan.rows if not row.problem and row.images < row.batch]
    plan.notes.append(
        "Timed on drawn images: a step's time does not depend on the pixels. Weights are random, and nothing was kept."
    )
    if fewer:
        plan.notes.append(
            f"{', '.join(row.name for row in fewer)}: timed with {fewer[0].images} images a step and scaled to "
            f"{fewer[0].batch}; terms that compare all pixels of a batch grow faster."
        )
    if plan.ranks > 1:
        plan.notes.append("Timed on one rank: what the ranks' exchange of gradients takes comes on top.")
    if model.setting.sharing > 1:
        plan.notes.append(f"Trials that share a GPU are taken to slow each other down by {model.setting.sharing:g}.")
    waiting = max(row.waiting for row in plan.rows)
    if waiting > 1.5:
        plan.notes.append(
            f"This machine is busy with something else: measuring took up to {waiting:.0f} times as long as computing. "
            "The estimate is for a free one."
        )
    if not on_gpu:
        plan.notes.append("On CPUs, trials side by side also share memory and caches, which is not in these numbers.")
    if space.search.latency is not None:
        count = len(students(space)) + (space.default().trial.teacher is not None)
        plan.notes.append(
            f"Before the first trial, the latency of {count} networks is measured on {space.search.latency}, unless it "
            f"is known: about {duration(count * ROUNDS * (1.5 * SECONDS + 0.5))}, more where an image takes over 0.2 s."
        )
    plan.notes.append("Not in it: starting Ray and the workers (about half a minute), and reading the data set once.")


def _fill(row: Row, config: TrialConfig, gflops: float, model: Model) -> None:
    from kdsearch.search.plan import estimate

    image = model.image(config, gflops)
    seconds = image["student"] + image["teacher"] + image["terms"]
    row.step_s = seconds * row.batch
    row.shares = {name: image[name] / seconds for name in ("student", "teacher", "terms")}
    row.epoch_s = model.epoch(config, gflops)
    row.val_share = model.setting.val * image["val"] / model.setting.ranks / row.epoch_s
    row.full_s = estimate.full_seconds(model, config, gflops)
    alone = image["student"]
    row.shares |= {
        f"terms.{name}": sum(model.terms[name]) / len(model.terms[name]) * model.setting.sharing / alone
        for name in config.distill if name in model.terms
    }  # fmt: skip


def _warn(plan: Plan, row: Row) -> None:
    if row.problem:
        if not row.problem.startswith("not measured"):
            plan.warnings.append(f"{row.name} ({row.student}): {row.problem}.{_advice(row)}")
        return
    for name, share in row.shares.items():
        if name.startswith("terms.") and share > 1:
            text = f"{name.removeprefix('terms.')} takes {share:.1f} times as long as a step of {row.student} alone"
            plan.warnings.append(f"{text}; a smaller tap, a pool or more stride makes it cheaper.")


def _advice(row: Row) -> str:
    if "the term " in row.problem:
        return " In a study it would take as long at every step: give it a smaller map, or leave it out."
    return " Give it longer with --limit, or plan on a machine like those of the study."


def _memory(measured: Measured) -> dict[str, float]:
    return {name: size / 1e9 for name, size in measured.memory.items()}


def _images_to_time(config: TrialConfig, info: DatasetInfo, batch: int, on_gpu: bool) -> int:
    """Images of a timed step: all of the batch's, or fewer where the step would take long; batch norm wants two."""
    from kdsearch import models

    size = config.data.crop or config.data.size
    flops = 3e9 * models.cost(config.student, info, size).gflops
    if config.teacher is not None and config.distill:
        flops += 1e9 * models.cost(config.teacher.network(), info, size).gflops
    affordable = int(STEP_S * FLOPS["cuda" if on_gpu else "cpu"] / flops)
    return min(batch, max(2, affordable))


def _free_memory() -> float:
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
