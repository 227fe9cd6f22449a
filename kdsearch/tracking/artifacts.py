"""The result files of a run folder, kept current while a study runs: both tables and `summary.json`."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from kdsearch.config.space.search_space import SearchSpace
from kdsearch.io.atomic import write_atomically
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.callbacks import Status, StudyCallback, StudyEnd
from kdsearch.search.confirm import Confirmation, confirmations
from kdsearch.search.dataframes import frontier_dataframe, trials_dataframe
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.summary import FrontierPoint, StudySummary
from kdsearch.search.trial_record import TrialRecord
from kdsearch.version import __version__

WRITE_EVERY_S = 5.0
"""Least seconds between two writes while trials end."""
WRITE_SHARE = 0.02
"""Share of a study's time that writing may take: the longer a write takes, the rarer it is."""


class ArtifactsCallback(StudyCallback):
    """Writes `trials.parquet`, `frontier.parquet` and `summary.json`.

    `facts` are further fields of the summary. An exception ends the study: its results could not be kept.
    """

    critical: ClassVar[bool] = True

    def __init__(
        self,
        space: SearchSpace,
        run: RunFolder,
        storage: StudyStorage,
        teacher_metrics: Callable[[], dict[str, float]],
        rungs: RungState,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.space, self.run, self.storage, self.rungs = space, run, storage, rungs
        self._teacher_metrics = teacher_metrics
        self._facts = dict(facts or {})
        self._members: Sequence[TrialRecord] = ()
        self._hypervolume = 0.0
        self._due = 0.0
        for partial in run.path.glob(".*.partial"):
            partial.unlink()  # of a driver that was killed during a write; there is one driver at a time

    def on_trial_end(self, trial: TrialRecord) -> None:
        self._write_if_due()

    def on_frontier(self, members: Sequence[TrialRecord], hypervolume: float) -> None:
        self._members, self._hypervolume = members, hypervolume
        self._write_if_due()

    def on_study_end(self, end: StudyEnd) -> None:
        self.write(end.status)

    def _write_if_due(self) -> None:
        if time.monotonic() >= self._due:
            self.write("running")

    def write(self, status: Status) -> None:
        """Write all files."""
        began = time.monotonic()
        trials = trials_dataframe([trial for trial in self.storage.trials if trial.state != "RUNNING"])
        confirmed = confirmations(self._members, self.storage.trials, self.space.confirm, self.space.search.objectives)
        frontier = frontier_dataframe(self._members, confirmed)
        write_atomically(self.run.path / "trials.parquet", trials.to_parquet)
        write_atomically(self.run.path / "frontier.parquet", frontier.to_parquet)
        self._summary(status, confirmed).write(self.run.summary)
        took = time.monotonic() - began
        self._due = time.monotonic() + max(WRITE_EVERY_S, took / WRITE_SHARE)

    def _summary(self, status: Status, confirmed: Mapping[str, Confirmation]) -> StudySummary:
        trials = self.storage.trials
        return StudySummary(
            kdsearch=__version__,
            space=self.space.name,
            status=status,
            objectives={str(name): direction for name, direction in self.space.search.objectives.items()},
            trials=dict(Counter(trial.state for trial in trials)),
            searched=sum(trial.stage == "search" and trial.state != "RUNNING" for trial in trials),
            asked=self.space.search.trials,
            hypervolume=self._hypervolume,
            stopping=self.rungs.audit_report(),
            teacher_miou=self._teacher_metrics().get("val/miou"),
            frontier=[self._point(member, confirmed[member.id]) for member in self._members],
            **self._facts,
        )

    def _point(self, member: TrialRecord, confirmation: Confirmation) -> FrontierPoint:
        known: dict[str, Any] = {name: value for name, value in confirmation.numbers().items() if not math.isnan(value)}
        known |= member.cost
        return FrontierPoint(
            trial=member.id, miou=member.miou, **known, gain_of_class=dict(confirmation.gain_of_class),
            student=str(self.run.student(member.id)), params=member.params,
        )  # fmt: skip
