"""A student of a finished study in a run folder. Nothing in the folder is trusted: it may come from somebody else."""

from __future__ import annotations

from pathlib import Path

from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.choice import STUDENT_FILES, Best, ChosenStudent, choose
from kdsearch.search.summary import StudySummary


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
    for name in STUDENT_FILES:
        if not (student / name).is_file():
            raise UserError(f"{student / name} is missing; copy the run folder whole.")
    return ChosenStudent(
        student, point, run.path.name, summary.space, summary.kdsearch, f"best {best}, by {how}",
        f"run folder {run.path.name}", run.stores,
    )  # fmt: skip
