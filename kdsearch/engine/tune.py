"""Ray Tune as the engine of a study: the controller behind Tune's searcher, scheduler and callback interfaces."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from kdsearch.engine.faults import Faults
from kdsearch.engine.messages import (
    AttemptEnded,
    NotSaved,
    Placement,
    Progress,
    TrialFailed,
    TrialJob,
    epoch_seconds,
    reply_of,
)
from kdsearch.engine.timeouts import Timeouts
from kdsearch.engine.trial_actor import TrialActor
from kdsearch.search.controller import StudyController
from kdsearch.search.trial_record import TrialRecord

SPARE_S = 600.0
"""Seconds that a trial actor may be silent beyond the timeouts that it applies itself."""

JobOf = Callable[[TrialRecord], TrialJob]


class StudyInterrupted(BaseException):
    """The study was asked to stop. Not an `Exception`, so that Tune does not take it for a failure of a trial."""


class DriverError(BaseException):
    """An error in the driver's own code. Tune would take an `Exception` for a failure of the trial and retry it."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@contextmanager
def _driver_code() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise DriverError(error) from error


class _NotPickled:
    """Tune pickles its searcher, scheduler and callbacks to restore them. The study's journal is the only state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class ControllerSearcher(_NotPickled, Searcher):  # type: ignore[misc]
    """Gets trials from the controller and reports their end. `trial_ids` maps Tune's ids to those of the records.

    A trial of Tune is one attempt at a trial of the study; `faults` decides what becomes of one that ended without a
    verdict.
    """

    def __init__(
        self,
        controller: StudyController,
        job_of: JobOf,
        fixed: dict[str, Any],
        slots: Callable[[], int],
        faults: Faults,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self._controller, self._job_of, self._fixed = controller, job_of, fixed
        self._slots, self._stopped = slots, stopped
        self.faults = faults
        self.trial_ids: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self.longest_s = max((r.seconds / r.epoch for r in controller.storage.trials if r.epoch), default=0.0)

    def suggest(self, trial_id: str) -> Any:
        if self._stopped():
            return Searcher.FINISHED
        with _driver_code():
            if len(self._controller.in_flight) >= self._slots():
                for waiting in self._controller.taken_back():  # nodes have gone, and their trials wait for others
                    if message := self.faults.on_wait(waiting.id):
                        self._controller.callback.on_message(message)
                return None
            trial = self._controller.next_trial()
            if trial == "done":
                return Searcher.FINISHED
            if trial == "wait":
                assert self._controller.in_flight, "the controller waits, but no trial is in flight"
                return None
            self.trial_ids[trial_id] = trial.id
            return self._fixed | {
                "job": self._job_of(trial), "longest_epoch_s": self.longest_s,
                "avoid": self.faults.avoid(trial.id), "alone": self.faults.alone(trial.id),
            }  # fmt: skip

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if self._stopped():
            return  # the trial stays RUNNING in the storage, and goes on when the study is resumed
        with _driver_code():
            name = self.trial_ids[trial_id]
            if error:
                self._on_attempt_ended(name, AttemptEnded(self.reasons.pop(trial_id), "died"))
                return
            reply = reply_of(result) if result else None
            if isinstance(reply, NotSaved):
                if reply.full or not _is_writable(Path(reply.folder)):
                    # The next trial could not be saved either. This one stays RUNNING and goes on later.
                    raise OSError(reply.reason)
                reply = AttemptEnded(reply.reason, "error", reply.nodes)
            if isinstance(reply, AttemptEnded):
                self._on_attempt_ended(name, reply)
            elif isinstance(reply, TrialFailed):
                self._controller.on_trial_end(name, reply.reason, infeasible=reply.infeasible)
            else:
                self._controller.on_trial_end(name, None)

    def _on_attempt_ended(self, name: str, ended: AttemptEnded) -> None:
        decision = self.faults.on_attempt_ended(name, ended)
        if decision.message:
            self._controller.callback.on_message(decision.message)
        match decision.action:
            case "wait":
                self._controller.on_trial_wait(name)
            case "fail":
                self._controller.on_trial_end(name, ended.reason)
            case _:
                self._controller.on_trial_restart(name, ended.reason, later=decision.action == "later")

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the scheduler reports results to the controller."""

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...

    def get_state(self) -> dict[str, Any]:
        return {}


class ControllerScheduler(_NotPickled, FIFOScheduler):  # type: ignore[misc]
    """Reports every epoch to the controller, which decides whether the trial goes on."""

    metric = None  # Tune checks results for a single metric where a scheduler names one

    def __init__(self, controller: StudyController, searcher: ControllerSearcher) -> None:
        super().__init__()
        self._controller, self._searcher = controller, searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        progress = Progress.from_result(result)
        self._searcher.longest_s = max(self._searcher.longest_s, epoch_seconds(progress.metrics))
        with _driver_code():
            trial_id = self._searcher.trial_ids[trial.trial_id]
            self._searcher.faults.on_progress(trial_id, progress.epoch, progress.nodes)
            goes_on = self._controller.on_report(trial_id, progress.epoch, dict(progress.metrics))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial actor itself has failed; what goes wrong with its workers is a result."""
        lines = Path(trial.error_file).read_text().strip().splitlines()
        self._searcher.reasons[trial.trial_id] = lines[-1].split("Error: ", 1)[-1]


class RequestedStop(_NotPickled, tune.Stopper):  # type: ignore[misc]
    """Ends all trials once `stop` returns True; Tune then ends their actors in order."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stop()


class WatchdogCallback(_NotPickled, tune.Callback):  # type: ignore[misc]
    """Notices when Tune hangs.

    A trial actor applies `Timeouts` to its workers; here the driver applies a longer one to that actor, so that no
    failure of Ray itself is waited for without end.
    """

    def __init__(self, controller: StudyController, searcher: ControllerSearcher, timeouts: Timeouts) -> None:
        self._controller, self._searcher, self._timeouts = controller, searcher, timeouts
        self._last_signs: dict[str, tuple[object, float]] = {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now = time.monotonic()
        longest = self._timeouts.of_epoch(self._searcher.longest_s, first=True)
        limit = self._timeouts.group_s + 2 * longest + SPARE_S
        attempts = Counter(self._searcher.trial_ids.values())
        for name, trial in self._controller.in_flight.items():
            sign = trial.epoch, attempts[name]
            if self._last_signs.get(name, (None, 0.0))[0] != sign:
                self._last_signs[name] = sign, now
            elif now - self._last_signs[name][1] > limit:
                with _driver_code():
                    raise TimeoutError(f"Ray Tune hangs: no report of {name} for {limit:g} s")


def _is_writable(folder: Path) -> bool:
    """Whether this process can write there: a worker that could not is then at fault, or its machine."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
    except OSError:
        return False
    return True


def run_trials(
    controller: StudyController,
    job_of: JobOf,
    placement: Placement,
    slots: Callable[[], int],
    faults: Faults,
    timeouts: Timeouts,
    trainable: type[tune.Trainable] = TrialActor,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train the controller's trials, `slots()` at a time, until it has no more.

    `slots` is called again while the study runs, so that nodes which join the cluster are used. `faults` decides on
    attempts without a verdict. `trainable` takes a config as `ControllerSearcher` gives it and answers each step as
    `TrialActor` does. `stop` is polled several times per second.

    An error in the controller or a critical callback (a full disk, for example) ends the loop at once and is raised as
    it is. Raises `OSError` where a worker cannot save its trial, `TimeoutError` where Ray Tune itself hangs, and
    `StudyInterrupted` once `stop` returns True.
    """
    # Tune wants a folder for its own state, which is never read: the workers save trials in the run folder.
    scratch = tempfile.mkdtemp(prefix="kdsearch-tune-")
    fixed = {"placement": placement, "scratch": scratch, "timeouts": timeouts}
    searcher = ControllerSearcher(controller, job_of, fixed, slots, faults, stop)
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
                failure_config=tune.FailureConfig(max_failures=0),  # the next attempt is another trial of Tune
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                callbacks=[WatchdogCallback(controller, searcher, timeouts)],
                stop=RequestedStop(stop),
                verbose=0,
            ),
        ).fit()
        if stop():
            raise StudyInterrupted
    except DriverError as broken:
        raise broken.error from None
    finally:
        shutil.rmtree(Path(scratch), ignore_errors=True)
