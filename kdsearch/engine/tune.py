"""Ray Tune as the engine: the controller behind Tune's searcher, scheduler and callback interfaces."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from kdsearch.engine.timeouts import Timeouts
from kdsearch.engine.trial_actor import TrialActor, seconds_of
from kdsearch.engine.worker_group import Placement, TrialJob
from kdsearch.search.controller import StudyController
from kdsearch.search.storage.study_storage import TrialRecord

SPARE_S = 600.0
"""What a trial's actor may be silent beyond the limits that it keeps itself."""


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


class ControllerSearcher(_NotSaved, Searcher):  # type: ignore[misc]
    """Asks the controller for jobs and tells it how they ended. `ours` maps Tune's trial ids to records' ids."""

    def __init__(
        self,
        controller: StudyController,
        job_of: Callable[[TrialRecord], TrialJob],
        fixed: dict[str, Any],
        slots: Callable[[], int],
    ) -> None:
        super().__init__()
        self._controller, self._job_of, self._fixed, self._slots = controller, job_of, fixed, slots
        self.ours: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self.longest_s = max((r.seconds / r.epoch for r in controller.record.all() if r.epoch), default=0.0)

    def suggest(self, trial_id: str) -> Any:
        with _ours():
            if len(self._controller.in_flight) >= self._slots():
                return None
            record = self._controller.next_trial()
            if record == "done":
                return Searcher.FINISHED
            if record == "wait":
                # Tune would ask again for ever.
                assert self._controller.in_flight, "the controller waits, but nothing is being trained"
                return None
            self.ours[trial_id] = record.id
            return self._fixed | {"job": self._job_of(record), "longest_epoch_s": self.longest_s}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        result = result or {}
        failure = self.reasons[trial_id] if error else result.get("failed")
        with _ours():
            if "broken" in result:
                # The next trial could not be saved either. This one stays as it is on record, and goes on later.
                raise OSError(result["broken"])
            self._controller.on_trial_end(self.ours[trial_id], failure, infeasible=bool(result.get("infeasible")))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The scheduler has told the controller already."""

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...

    def get_state(self) -> dict[str, Any]:
        return {}


class ControllerScheduler(_NotSaved, FIFOScheduler):  # type: ignore[misc]
    """Passes every epoch to the controller, which says whether the trial goes on."""

    metric = None  # Tune checks results for a single metric where a scheduler names one

    def __init__(self, controller: StudyController, searcher: ControllerSearcher) -> None:
        super().__init__()
        self._controller, self._searcher = controller, searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        metrics = {k.removeprefix("metrics/"): v for k, v in result.items() if k.startswith("metrics/")}
        self._searcher.longest_s = max(self._searcher.longest_s, seconds_of(metrics))
        with _ours():
            goes_on = self._controller.on_report(self._searcher.ours[trial.trial_id], result["epoch"], metrics)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Called at every failure, before Tune decides on a retry."""
        lines = Path(trial.error_file).read_text().strip().splitlines()
        self._searcher.reasons[trial.trial_id] = lines[-1].split("Error: ", 1)[-1]


class RestartCallback(_NotSaved, tune.Callback):  # type: ignore[misc]
    """Tells the controller about trials that Tune starts again, and notices when Tune stops doing anything.

    The actor of a trial keeps time on its workers (`Timeouts`); here the driver keeps time on that actor, with room to
    spare, so that no failure of Ray itself is waited for without end.
    """

    def __init__(self, controller: StudyController, searcher: ControllerSearcher, limits: Timeouts) -> None:
        self._controller, self._searcher, self._limits = controller, searcher, limits
        self._heard: dict[str, tuple[int, float]] = {}

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._heard.pop(self._searcher.ours[trial.trial_id], None)
        with _ours():
            self._controller.on_trial_restart(
                self._searcher.ours[trial.trial_id], self._searcher.reasons[trial.trial_id]
            )

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now = time.monotonic()
        longest = self._limits.of_epoch(self._searcher.longest_s, first=True)
        limit = self._limits.group_s + 2 * longest + SPARE_S
        for name, record in self._controller.in_flight.items():
            if self._heard.get(name, (-1, 0.0))[0] != record.epoch:
                self._heard[name] = record.epoch, now
            elif now - self._heard[name][1] > limit:
                with _ours():
                    raise TimeoutError(f"nothing was heard of {name} from Ray Tune for {limit:g} s")


def train_all(
    controller: StudyController,
    job_of: Callable[[TrialRecord], TrialJob],
    placement: Placement,
    slots: Callable[[], int],
    max_failures: int,
    limits: Timeouts,
    trainable: type[tune.Trainable] = TrialActor,
) -> None:
    """Train what the controller hands out, `slots()` trials at a time, until it is done.

    `slots` is asked again while the study runs, so that nodes which join the cluster are used. `trainable` takes a
    config as `ControllerSearcher` gives it and answers each step as `TrialActor` does.

    An error in the controller or a listener (a full disk, say) ends the loop at once and is raised as it is; so is the
    `OSError` of a worker that cannot save its trial, and `TimeoutError` when Ray Tune itself hangs.
    """
    # Tune wants a folder for its own state, which nobody reads: the workers save trials in the run folder.
    scratch = tempfile.mkdtemp(prefix="kdsearch-tune-")
    searcher = ControllerSearcher(
        controller, job_of, {"placement": placement, "scratch": scratch, "limits": limits}, slots
    )
    try:
        tune.Tuner(
            # The actor itself only waits; it takes no CPU from the workers and lives beside the driver.
            tune.with_resources(trainable, {"node:__internal_head__": 0.0001}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=ControllerScheduler(controller, searcher),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=scratch,
                failure_config=tune.FailureConfig(max_failures=max_failures),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                callbacks=[RestartCallback(controller, searcher, limits)],
                verbose=0,
            ),
        ).fit()
    except StudyBroken as broken:
        raise broken.error from None
    finally:
        shutil.rmtree(Path(scratch), ignore_errors=True)
