"""The runs in a storage folder, from their `summary.json`: quick, and safe on folders that somebody else wrote."""

from __future__ import annotations

from dataclasses import dataclass

from kdsearch.errors import UserError
from kdsearch.io.locks import is_held
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.summary import StudySummary


@dataclass(frozen=True)
class Run:
    """One run. Values that its folder does not contain (yet) are None; times are seconds since 1970.

    `status` is that of the summary, or `damaged` with the reason in `problem`. `trials` counts finished trials of the
    search, of `asked`.
    """

    name: str
    path: str
    status: str
    space: str | None = None
    trials: int | None = None
    asked: int | None = None
    frontier: int | None = None
    best_miou: float | None = None
    hypervolume: float | None = None
    started: float | None = None
    updated: float | None = None
    problem: str | None = None


def list_runs(storage: str) -> list[Run]:
    """The runs in the folder `storage`, newest first. Raises `UserError` if it is no folder."""
    folder = RunFolder.at(storage, "any").path.parent
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"There is no folder {folder}; name the folder of the runs with --storage.") from None
    except PermissionError:
        raise UserError(f"You may not read the folder {folder}; ask its owner for access, or name another.") from None
    runs = [_run(RunFolder(entry)) for entry in entries if _is_run(RunFolder(entry))]
    return sorted(runs, key=lambda run: (run.started or 0.0, run.name), reverse=True)


def status_of(folder: RunFolder) -> str:
    """The status of one run; see `Run`. A study whose driver was killed is `interrupted`."""
    return _run(folder).status


def _is_run(folder: RunFolder) -> bool:
    return any(path.exists() for path in (folder.summary, folder.journal, folder.space))


def _run(folder: RunFolder) -> Run:
    name, path = folder.path.name, str(folder.path)
    started = folder.lock.stat().st_mtime if folder.lock.exists() else None
    try:
        alive = is_held(folder.lock)
        if not folder.summary.exists():
            # A study writes its first summary when its workers are about to start.
            return Run(name, path, "running" if alive else "interrupted", started=started)
        summary = StudySummary.load(folder.summary)
        updated = folder.summary.stat().st_mtime
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Run(name, path, "damaged", started=started, problem=f"{folder.summary.name}: {reason}")
    # A killed driver could not write the end of its study.
    killed = not alive and summary.status == "running"
    return Run(
        name, path, "running" if alive else "interrupted" if killed else summary.status,
        space=summary.space, trials=summary.searched, asked=summary.asked, frontier=len(summary.frontier),
        best_miou=summary.best_miou, hypervolume=summary.hypervolume, started=started, updated=updated,
    )  # fmt: skip
