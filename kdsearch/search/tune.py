"""Ray Tune as the engine: the agenda behind Tune's searcher, scheduler and callback interfaces."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from kdsearch.search.agenda import Agenda
from kdsearch.search.record import Record
from kdsearch.search.trainable import StudentTrainable
from kdsearch.search.workers import Job, Placement


class StudyBroken(BaseException):
    """An error in our own part of the loop. Tune would take an `Exception` for a failure of the trial and retry it."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise StudyBroken(error) from error


class _NotSaved:
    """Tune pickles what it is given, to restore it. The study's journal is the only state; nothing is kept here."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class AgendaSearcher(_NotSaved, Searcher):  # type: ignore[misc]
    """Asks the agenda for jobs and tells it how they ended. `ours` maps Tune's trial ids to records' ids."""

    def __init__(self, agenda: Agenda, job_of: Callable[[Record], Job], fixed: dict[str, Any], slots: int) -> None:
        super().__init__()
        self._agenda, self._job_of, self._fixed, self._slots = agenda, job_of, fixed, slots
        self.ours: dict[str, str] = {}
        self.reasons: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        if len(self._agenda.out) >= self._slots:
            return None
        with _ours():
            record = self._agenda.next()
            if record == "wait":
                return None
            if record == "done":
                return Searcher.FINISHED
            self.ours[trial_id] = record.id
            return self._fixed | {"job": self._job_of(record)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        result = result or {}
        failure = self.reasons[trial_id] if error else result.get("failed")
        with _ours():
            self._agenda.ended(self.ours[trial_id], failure, infeasible=bool(result.get("infeasible")))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The scheduler has told the agenda already."""

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...

    def get_state(self) -> dict[str, Any]:
        return {}


class AgendaScheduler(_NotSaved, FIFOScheduler):  # type: ignore[misc]
    """Passes every epoch to the agenda, which says whether the trial goes on."""

    metric = None  # Tune checks results for a single metric where a scheduler names one

    def __init__(self, agenda: Agenda, searcher: AgendaSearcher) -> None:
        super().__init__()
        self._agenda, self._searcher = agenda, searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        metrics = {k.removeprefix("metrics/"): v for k, v in result.items() if k.startswith("metrics/")}
        with _ours():
            goes_on = self._agenda.heard(self._searcher.ours[trial.trial_id], result["epoch"], metrics)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Called at every failure, before Tune decides on a retry."""
        lines = Path(trial.error_file).read_text().strip().splitlines()
        self._searcher.reasons[trial.trial_id] = lines[-1].split("Error: ", 1)[-1]


class Restarts(_NotSaved, tune.Callback):  # type: ignore[misc]
    """Tells the agenda about trials that Tune starts again."""

    def __init__(self, agenda: Agenda, searcher: AgendaSearcher) -> None:
        self._agenda, self._searcher = agenda, searcher

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        with _ours():
            self._agenda.restarted(self._searcher.ours[trial.trial_id], self._searcher.reasons[trial.trial_id])


def train_all(
    agenda: Agenda,
    job_of: Callable[[Record], Job],
    placement: Placement,
    slots: int,
    max_failures: int,
    trainable: type[tune.Trainable] = StudentTrainable,
) -> None:
    """Train what the agenda hands out, `slots` trials at a time, until it is done.

    `trainable` takes a config of `placement`, `scratch` and `job` and answers each step as `StudentTrainable` does.
    An error in the agenda or a listener (a full disk, say) ends the loop at once and is raised as it is.
    """
    # Tune wants a folder for its own state, which nobody reads: the workers save trials in the run folder.
    scratch = tempfile.mkdtemp(prefix="kdsearch-tune-")
    searcher = AgendaSearcher(agenda, job_of, {"placement": placement, "scratch": scratch}, slots)
    try:
        tune.Tuner(
            # The actor itself only waits; it takes no CPU from the workers and lives beside the driver.
            tune.with_resources(trainable, {"node:__internal_head__": 0.0001}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=AgendaScheduler(agenda, searcher),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=scratch,
                failure_config=tune.FailureConfig(max_failures=max_failures),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                callbacks=[Restarts(agenda, searcher)],
                verbose=0,
            ),
        ).fit()
    except StudyBroken as broken:
        raise broken.error from None
    finally:
        shutil.rmtree(Path(scratch), ignore_errors=True)
