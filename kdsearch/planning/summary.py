"""What a plan says: its rows, and the estimates, warnings and notes that follow from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from kdsearch.config.space.search_space import Sample, SearchSpace
from kdsearch.models.latency import SECONDS
from kdsearch.planning import estimate
from kdsearch.planning.units import duration
from kdsearch.search.latency.cache import ROUNDS
from kdsearch.search.latency.enumerate import students


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


def summarise(
    plan: Plan,
    space: SearchSpace,
    model: estimate.Model,
    drawn: list[tuple[Sample, float]],
    teacher_s: float | None,
    confirm: bool,
    on_gpu: bool,
) -> None:
    """Complete the plan with stages, totals, warnings and notes."""
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
