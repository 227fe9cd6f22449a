"""A student of a finished study, found in a run folder. Everything read there may come from somebody else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsearch.config.search import main_cost
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.choice import METRICS, Best, Point, choose

FILES = ("model.safetensors", "config.json", "metrics.json")
"""What a student's folder holds; nothing else is read from it."""


@dataclass(frozen=True)
class Source:
    """One student: its folder, its point of the frontier, the study that found it, and why it was taken.

    `origin` says where it was found. `stores` is the folder of the study's data stores, where there is one.
    """

    student: Path
    point: Point
    study: str
    space: str
    version: str
    chosen: str
    origin: str
    stores: Path | None = None


def from_run_folder(folder: Path, best: Best, budget: str | None) -> Source:
    """The student of the run folder that `best` and `budget` name; `UserError` where there is none, or no such folder.

    A folder with links is refused: what they lead to would end in the bundle.
    """
    summary = read_summary(folder / "summary.json")
    point, how = choose(summary["frontier"], best, budget, summary["cost"])
    run = RunFolder(folder.resolve())
    run.refuse_links()
    student = run.student(point["trial"])
    if not student.is_dir():
        raise UserError(
            f"The student {point['trial']} is missing from {run.students}; was the run folder copied whole?"
        )
    for name in FILES:
        if not (student / name).is_file():
            raise UserError(f"{student / name} is missing; was the run folder copied whole?")
    return Source(
        student, point, run.path.name, str(summary["space"]), str(summary["kdsearch"]), f"best {best}, by {how}",
        f"run folder {run.path.name}", run.stores,
    )  # fmt: skip


def read_summary(path: Path) -> dict[str, Any]:
    """`summary.json` of a study, checked as far as it is used, and its main `cost`. Raises `UserError`."""
    try:
        summary: Any = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path.parent} is not a run folder: it has no summary.json.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); `--resume` the study to write it again.") from error
    run = RunFolder(path.parent)
    try:
        points = list(summary["frontier"])
        summary["cost"] = main_cost(dict(summary.get("objectives", {})))
        summary["space"], summary["kdsearch"]
        for point in points:
            for name in [*METRICS, summary["cost"], *(["latency_ms"] if "latency_ms" in point else [])]:
                point[name] = float(point[name])
            run.student(point["trial"])  # a name from a file becomes part of a path
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} is no summary of a study ({type(error).__name__}: {error}); `--resume` it to write it again."
        ) from error
    return dict(summary)
