"""Retention: weights and checkpoints that a study needs no more are removed; the records of their trials stay."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import ClassVar

from kdsearch.config.space.search_space import SearchSpace
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.callbacks import StudyCallback
from kdsearch.search.confirm import control_to_show
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord


class RetentionCallback(StudyCallback):
    """Keeps the weights of running trials, of the frontier, and of one control per member (the report shows it)."""

    critical: ClassVar[bool] = True

    def __init__(self, space: SearchSpace, run: RunFolder, storage: StudyStorage) -> None:
        self.space, self.run, self.storage = space, run, storage
        self._members: Sequence[TrialRecord] = ()

    def on_trial_end(self, trial: TrialRecord) -> None:
        self.run.checkpoint(trial.id).unlink(missing_ok=True)
        self._remove_weights()

    def on_frontier(self, members: Sequence[TrialRecord], hypervolume: float) -> None:
        self._members = members
        self._remove_weights()

    def _remove_weights(self) -> None:
        running = {trial.id for trial in self.storage.running()}
        keep = {member.id for member in self._members} | running
        # Controls alone: a search through all records per member at every end would be a study's largest cost.
        controls = self.storage.complete("control")
        shown = (control_to_show(member.config, controls, self.space.confirm) for member in self._members)
        keep |= {control.id for control in shown if control is not None}
        for folder in self.run.students.iterdir():
            # A worker may be writing `.<trial>.<pid>.partial` of a running trial at this moment.
            if _trial_of(folder.name) not in keep:
                shutil.rmtree(folder)
        for checkpoint in self.run.checkpoints.iterdir():
            if _trial_of(checkpoint.name) not in running | {"teacher"}:
                checkpoint.unlink(missing_ok=True)


def _trial_of(file_name: str) -> str:
    return file_name.lstrip(".").split(".")[0]
