"""The runs under a storage, from their `summary.json`; quick, and safe to ask of folders that somebody else wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsearch.errors import UserError
from kdsearch.io.locks import is_held
from kdsearch.io.run_folder import RunFolder

STATUSES = ("running", "done", "interrupted", "failed")
LARGEST = 64 * 2**20
"""Bytes of a `summary.json` that is read; a study of thousands of trials writes some hundred thousand."""


@dataclass(frozen=True)
class Run:
    """One run. What its folder does not say, or not yet, is None; times are seconds since 1970.

    `status` is one of `STATUSES`, or `damaged`, with the reason in `problem`. `trials` of the search are over, of the
    `asked` ones.
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
    """The runs in the folder `storage`, newest first. Raises `UserError` when it is no folder."""
    folder = RunFolder.at(storage, "any").path.parent
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"There is no folder {folder}; name the folder of the runs with --storage.") from None
    except PermissionError:
        raise UserError(f"The folder {folder} cannot be read by you; ask its owner, or name another.") from None
    runs = [_run(RunFolder(entry)) for entry in entries if _is_run(RunFolder(entry))]
    return sorted(runs, key=lambda run: (run.started or 0.0, run.name), reverse=True)


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
        facts = _facts(folder.summary)
        updated = folder.summary.stat().st_mtime
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Run(name, path, "damaged", started=started, problem=f"{folder.summary.name}: {reason}")
    # A driver that was killed could not write that its study no longer runs.
    facts["status"] = "running" if alive else "interrupted" if facts["status"] == "running" else facts["status"]
    return Run(name, path, **facts, started=started, updated=updated)


def _facts(summary: Path) -> dict[str, Any]:
    """What a `summary.json` says of its run. Raises `ValueError` and its like for what no study writes."""
    if summary.stat().st_size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MB")
    try:
        said = json.loads(summary.read_bytes())
    except ValueError:
        raise ValueError("not valid JSON") from None
    if not isinstance(said, Mapping):
        raise ValueError("not a JSON object")
    members = _one(said, "frontier", list)
    status = _one(said, "status", str)
    if status not in STATUSES:
        raise ValueError(f"its status is {status!r}")
    mious = [float(_one(member, "miou", (int, float))) for member in members]
    return {
        "status": status,
        "space": _one(said, "space", str),
        "trials": _one(said, "searched", int) if "searched" in said else None,
        "asked": _one(said, "asked", int) if "asked" in said else None,
        "frontier": len(members),
        "best_miou": max(mious, default=None),
        "hypervolume": float(_one(said, "hypervolume", (int, float))),
    }


def _one(said: Any, key: str, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(said, Mapping) or not isinstance(said.get(key), kind):
        raise ValueError(f"no valid '{key}'")
    return said[key]
