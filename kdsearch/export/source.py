"""A student in a folder: of a study, or alone. Nothing in the folder is trusted: it may come from somebody else."""

from __future__ import annotations

from pathlib import Path

from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.models.cost import network_cost
from kdsearch.models.student import load_student, read_config, read_metrics, read_trial
from kdsearch.search.choice import STUDENT_FILES, Best, ChosenStudent, choose
from kdsearch.search.summary import FrontierPoint, StudySummary


def from_folder(folder: Path, best: Best | None, budget: str | None) -> ChosenStudent:
    """The student in `folder`: the one that `kdsearch train` or an export wrote, or one chosen of a run folder."""
    if (folder / STUDENT_FILES[0]).is_file() and not RunFolder(folder).summary.exists():
        return from_student(folder, best, budget)
    return from_run_folder(folder, best or "miou", budget)


def from_student(folder: Path, best: Best | None, budget: str | None) -> ChosenStudent:
    """The one student in `folder`. Raises `UserError` where something is missing or a link."""
    if best is not None or budget is not None:
        raise UserError(f"{folder} holds one student; leave --best and --budget out, or name a run folder.")
    _check_files(folder)
    for name in STUDENT_FILES:
        if (folder / name).is_symlink():
            raise UserError(f"{folder / name} is a link; put the file itself in its place.")
    config, metrics, trial = read_config(folder), read_metrics(folder), read_trial(folder)
    student = load_student(folder)
    cost = network_cost(trial.student, student.info, student.size)
    if "val/miou" not in metrics:
        raise UserError(f"{folder / 'metrics.json'} has no val/miou; was the student trained to its end?")
    point = FrontierPoint("alone", metrics["val/miou"], cost.gflops, cost.params_m)
    name = folder.resolve().name
    return ChosenStudent(
        folder, point, name, "", str(config.get("kdsearch", "unknown")), "the only one, trained without a study",
        f"folder {name}",
    )  # fmt: skip


def from_run_folder(folder: Path, best: Best, budget: str | None) -> ChosenStudent:
    """The student of the run folder that `best` and `budget` select. Raises `UserError` where there is none.

    A folder with links is refused: their targets would end in the bundle.
    """
    run = RunFolder(folder.resolve())
    summary = StudySummary.read(run.summary)
    point, how = choose(summary.frontier, best, budget, summary.main_cost)
    run.refuse_links()
    student = run.student(point.trial)
    if not student.is_dir():
        raise UserError(f"The student {point.trial} is missing from {run.students}; copy the run folder whole.")
    _check_files(student)
    return ChosenStudent(
        student, point, run.path.name, summary.space, summary.kdsearch, f"best {best}, by {how}",
        f"run folder {run.path.name}", run.stores,
    )  # fmt: skip


def _check_files(student: Path) -> None:
    for name in STUDENT_FILES:
        if not (student / name).is_file():
            raise UserError(f"{student / name} is missing; copy the folder whole.")
