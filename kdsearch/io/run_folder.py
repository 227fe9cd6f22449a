"""The folder of one study: the path of each file."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from kdsearch.errors import UserError
from kdsearch.io.targets import check_target

LONGEST_NAME = 200
"""Bytes of a run's name: file systems take 255, of which temporary files beside the folder need some."""


@dataclass(frozen=True)
class RunFolder:
    """Paths in `<storage>/<name>`; all studies share the data stores and teachers in `<storage>/.cache`."""

    path: Path

    @property
    def cache(self) -> Path:
        return self.path.parent / ".cache"

    @property
    def space(self) -> Path:
        return self.path / "space.yaml"

    @property
    def record(self) -> Path:
        """What results depend on beside the space: `StudyRecord`."""
        return self.path / "study.json"

    @property
    def content(self) -> Path:
        """The content of the data set, file by file."""
        return self.path / "content.json"

    @property
    def journal(self) -> Path:
        return self.path / "study.journal"

    @property
    def lock(self) -> Path:
        """Locked by the study's driver as long as it lives. Created at the first start, and always empty."""
        return self.journal.with_suffix(".lock")

    @property
    def tracking(self) -> Path:
        """The ids of the study's runs in MLflow, for links to their pages."""
        return self.path / "tracking.json"

    @property
    def tracking_lock(self) -> Path:
        """Locked by the process that writes to MLflow."""
        return self.path / "tracking.lock"

    @property
    def rungs(self) -> Path:
        return self.path / "rungs.jsonl"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def latency(self) -> Path:
        return self.path / "latency.json"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def students(self) -> Path:
        return self.path / "students"

    @property
    def teachers(self) -> Path:
        return self.cache / "teachers"

    @property
    def teacher_maps(self) -> Path:
        return self.cache / "teacher-maps"

    @property
    def stores(self) -> Path:
        return self.cache / "data"

    def checkpoint(self, trial_id: str) -> Path:
        """Full training state of an unfinished trial."""
        return self.checkpoints / f"{_plain(trial_id)}.pt"

    def student(self, trial_id: str) -> Path:
        return self.students / _plain(trial_id)

    @classmethod
    def at(cls, storage: str, name: str) -> RunFolder:
        """The run folder `name` under `storage`; local paths and `file://` only."""
        if storage.startswith("file://"):
            storage = storage.removeprefix("file://")
        if "://" in storage:
            raise UserError(f"--storage {storage}: only local (or mounted) folders can hold runs; give a path.")
        if not name or Path(name).name != name or name.startswith("."):
            raise UserError(f"--name {name!r}: a run's name is one plain folder name without '/' and no leading dot.")
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise UserError(
                f"--name {name[:20]}...: a run's name has at most {LONGEST_NAME} bytes, not {len(os.fsencode(name))}; "
                "give a shorter one."
            )
        return cls(Path(storage).expanduser().resolve() / name)

    def create(self) -> None:
        """Create the folder and its sub-folders; `UserError` where that is not possible."""
        check_target("--storage", self.path)
        self.refuse_links()
        try:
            for folder in (self.path, self.checkpoints, self.students, self.stores, self.teachers):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"The run folder {self.path} cannot be written ({error.strerror}); "
                "give a writable folder with --storage."
            ) from error

    def refuse_links(self) -> None:
        """Raise `UserError` for a link in the folder, which somebody else may have made.

        A study removes weights, writes logs and copies students; a link would redirect that to another place.
        """
        for entry in (*self.path.glob("*"), *self.checkpoints.glob("*"), *self.students.glob("**/*")):
            # The lock of Optuna's journal is a dangling link.
            if entry.is_symlink() and entry.name != f"{self.journal.name}.lock":
                raise UserError(f"{entry} is a link; put the file or folder itself in its place.")


def _plain(trial_id: str) -> str:
    """The id of a trial as part of a path; `UserError` for an id, read from a file, that no study assigns."""
    if not re.fullmatch(r"[a-z]+\d*", trial_id):
        raise UserError(f"{trial_id!r} is no trial's name; the run folder was changed. Restore it from a copy.")
    return trial_id
