"""The stages and totals of a plan, and the warnings and notes that belong to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from kdsearch.config.space.search_space import Sample, SearchSpace
from kdsearch.errors import addressed
from kdsearch.models.latency import SECONDS
from kdsearch.planning.estimate import Stage, TimeModel, search_stage, stages
from kdsearch.planning.result import Plan, PlanRow
from kdsearch.planning.units import duration
from kdsearch.search.latency.cache import ROUNDS
from kdsearch.search.latency.enumerate import students


def add_totals(
    plan: Plan,
    space: SearchSpace,
    model: TimeModel,
    drawn: Sequence[tuple[Sample, float]],
    teacher_s: float | None,
    confirm: bool,
    on_gpu: bool,
) -> None:
    """Complete a plan that has its rows: stages, totals, warnings and notes."""
    plan.warnings += [text for row in plan.rows if (text := _row_warning(row))]
    if not model.students:
        plan.warnings.append(
            addressed("Nothing could be measured, so there is no estimate; give it more time with --limit.")
        )
        return
    unmeasured = sorted({name for sample, _ in drawn for name in sample.trial.distill} - set(model.terms))
    if unmeasured:
        plan.warnings.append(f"Without the time of {', '.join(unmeasured)}: no trial with them was measured.")
    found = stages(space, model, drawn, teacher_s, confirm)
    plan.stages = [asdict(stage) for stage in found]
    _add_sums(plan, found, on_gpu)
    _add_teacher_share(plan, space, model, drawn)
    plan.notes += _notes(plan, space, model, on_gpu)


def _add_sums(plan: Plan, found: Sequence[Stage], on_gpu: bool) -> None:
    slot = [sum(stage.slot_s[end] for stage in found) for end in (0, 1)]
    wall = [sum(stage.wall_s[end] for stage in found) for end in (0, 1)]
    last = found[-1]
    plan.total = {
        "slot_s": slot,
        "wall_s": wall,
        "gpu_s": [plan.gpus_per_slot * seconds for seconds in slot] if on_gpu or plan.gpus_per_slot else None,
        "confirm_share": last.slot_s[1] / slot[1] if last.name == "confirm" else 0.0,
    }


def _add_teacher_share(plan: Plan, space: SearchSpace, model: TimeModel, drawn: Sequence[tuple[Sample, float]]) -> None:
    """The teacher's share of the steps, and where it has no cache the stage of a search with one."""
    parts = [model.image(sample.trial, gflops) for sample, gflops in drawn if sample.trial.distill]
    if not parts:
        return
    steps = sum(part["student"] + part["teacher"] + part["terms"] for part in parts)
    plan.teacher_share = sum(part["teacher"] for part in parts) / steps
    default = drawn[0][0].trial.teacher
    if default is not None and default.cache == "off":
        plan.cached = asdict(search_stage(space, model, drawn, True, "search with cached maps"))


def _notes(plan: Plan, space: SearchSpace, model: TimeModel, on_gpu: bool) -> Iterator[str]:
    yield "Timed on random images: the time of a step does not depend on pixels. Weights are random; nothing was kept."
    fewer = [row for row in plan.rows if not row.problem and row.images < row.batch]
    if fewer:
        yield (
            f"{', '.join(row.name for row in fewer)}: timed with {fewer[0].images} images per step and scaled to "
            f"{fewer[0].batch}; terms that compare all pixels of a batch grow faster."
        )
    if plan.ranks > 1:
        yield "Timed on one rank: the exchange of gradients between ranks comes on top."
    if model.setup.sharing > 1:
        yield f"Trials that share a GPU are assumed to be slower by a factor of {model.setup.sharing:g}."
    waiting = max(row.waiting for row in plan.rows)
    if waiting > 1.5:
        yield (
            f"This machine is busy: the measurement took up to {waiting:.0f} times its computing time. The estimate is "
            "for a free machine."
        )
    if not on_gpu:
        yield "On CPUs, concurrent trials also share memory and caches, which these numbers leave out."
    if space.search.latency is not None:
        count = len(students(space)) + (space.default().trial.teacher is not None)
        seconds = count * ROUNDS * (1.5 * SECONDS + 0.5)
        yield (
            f"Before the first trial, the latency of {count} networks is measured on {space.search.latency}, unless it "
            f"is known: about {duration(seconds)}, more where an image takes over 0.2 s."
        )
    yield "Not included: the start of Ray and of the workers (about half a minute), and the first read of the data set."


def _row_warning(row: PlanRow) -> str:
    if row.problem:
        if row.problem.startswith("not measured"):
            return ""
        return f"{row.name} ({row.student}): {row.problem}.{_advice(row)}"
    for name, share in row.shares.items():
        if name.startswith("terms.") and share > 1:
            text = f"{name.removeprefix('terms.')} takes {share:.1f} times as long as a step of {row.student} alone"
            return f"{text}; a smaller tap, a pool or a larger stride makes it cheaper."
    return ""


def _advice(row: PlanRow) -> str:
    if "the term " in row.problem:
        return " In a study it would take as long at every step: give it a smaller map, or leave it out."
    return addressed(" Allow more time with --limit, or plan on a machine like those of the study.")
