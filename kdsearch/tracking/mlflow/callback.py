"""The MLflow callback: sends the events of a study to the process that writes MLflow.

MLflow takes more CPU than the rest of a driver. In a thread it would slow the study down.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import TracebackType

from kdsearch.config.metrics import main_cost
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.data.store.store import Store
from kdsearch.io.child_process import start_module
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.callbacks import StudyCallback, StudyEnd
from kdsearch.search.trial_record import TrialRecord
from kdsearch.tracking.mlflow.messages import (
    Close,
    FrontierUpdate,
    Message,
    RunUpdate,
    StudyFinished,
    StudyHeader,
    Waiting,
)
from kdsearch.tracking.mlflow.outbox import DRAIN_S
from kdsearch.version import __version__

REPLY_S = 30.0
"""Seconds beyond `drain_s` that a reply of the process is waited for."""
NOTIFY_S = 10.0
"""Seconds after which the user is notified of calls that are still queued at the end."""


class MLflowCallback(StudyCallback):
    """Tracks a study in MLflow, by default in `mlflow.db` of the run folder; see `MLflowWriter` for the runs.

    A study never waits for its tracking and never fails because of it. `restored` are the trials that were over before
    this driver began: MLflow gets the data of them that it lacks (run, settings, last epoch, state, end). The process
    sends everything that it received before its driver was killed; where the process was killed too, epochs before the
    last one of a trial are missing from the curves. At the end a server that does not answer is waited for `drain_s`
    seconds.
    """

    def __init__(
        self,
        uri: str | None,
        space: SearchSpace,
        run: RunFolder,
        store: Store,
        say: Callable[[str], None],
        restored: Sequence[TrialRecord] = (),
        drain_s: float = DRAIN_S,
    ) -> None:
        self.uri = uri or f"sqlite:///{run.path / 'mlflow.db'}"
        self._say = say
        self._over = len(restored)
        self._frontier_metrics: dict[str, float] = {}
        search = space.search
        self._header = StudyHeader(
            uri=self.uri,
            run=run,
            space=space.name,
            cost=main_cost(search.objectives),
            timed=search.latency is not None,
            settings=space.resolved(),
            params={f"search.{name}": str(value) for name, value in search.model_dump(mode="json").items()},
            data={"name": store.info.name, "digest": store.fingerprint[:36], "uri": store.path.as_uri()},
            tags=_versions(),
            restored=[_whole(trial) for trial in restored],
            drain_s=drain_s,
        )
        self._messages: SimpleQueue[Message] = SimpleQueue()
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._last_reply = 0.0
        self._unsent = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process that writes."""
        self._process, pipe = start_module("kdsearch.tracking.mlflow.process")
        # A thread, so that the driver neither waits for the pipe nor is interrupted in the middle of a message.
        self._thread = threading.Thread(target=self._send, args=[pipe], daemon=True)
        self._messages.put(self._header)
        self._thread.start()

    def close(self) -> None:
        """Send all that is queued and end the process; safe to call again."""
        if self._process is None:
            return
        process, self._process = self._process, None
        self._last_reply = time.monotonic()
        self._messages.put(Close())
        while self._thread.is_alive():
            self._thread.join(1.0)
            self._pass_on()
            if time.monotonic() > self._last_reply + self._header.drain_s + REPLY_S:
                process.kill()  # it hangs; the thread finds its pipe closed
        process.wait()
        self._pass_on()
        if self._unsent:
            self._say(
                f"{self._unsent} messages did not reach {self.uri}; the run folder has every result, and --resume "
                "sends the missing ones."
            )

    def _queue(self, message: Message) -> None:
        self._messages.put(message)
        self._pass_on()

    def _pass_on(self) -> None:
        """Pass on the lines of the sending thread: the driver's thread alone calls the callbacks of a study."""
        while not self._lines.empty():
            self._say(self._lines.get())

    def __enter__(self) -> MLflowCallback:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _send(self, pipe: Connection) -> None:
        with pipe:
            try:
                while not isinstance(message := self._messages.get(), Close):
                    pipe.send(message)
                pipe.send(message)
                notify_at = time.monotonic() + NOTIFY_S
                while isinstance(reply := pipe.recv(), Waiting):
                    self._last_reply = time.monotonic()
                    if self._last_reply > notify_at:
                        self._lines.put(f"MLflow is being updated: {reply.calls} calls to {self.uri} are queued")
                        notify_at = math.inf
                self._unsent = reply.unsent
            except (EOFError, OSError):
                self._lines.put(
                    f"The process that writes to {self.uri} ended before the study, which goes on without it; the run "
                    "folder has every result, and --resume sends the missing ones."
                )

    # ---- events --------------------------------------------------------------------------------------------------

    def on_trial_start(self, trial: TrialRecord) -> None:
        update = RunUpdate(trial.id)
        update.begin(trial)
        self._queue(update)

    def on_trial_result(self, trial: TrialRecord) -> None:
        if trial.epoch < trial.config.train.epochs:  # the last epoch is sent with the end of the trial, in one call
            update = RunUpdate(trial.id)
            update.add(trial.metrics, trial.epoch)
            self._queue(update)

    def on_trial_restart(self, trial: TrialRecord, reason: str) -> None:
        self._queue(RunUpdate(trial.id, tags={"kdsearch.restarted": reason}))

    def on_trial_end(self, trial: TrialRecord) -> None:
        self._over += 1
        update = RunUpdate(trial.id)
        update.end(trial)
        self._queue(update)

    def on_frontier(self, members: Sequence[TrialRecord], hypervolume: float) -> None:
        best = max((member.miou for member in members), default=None)
        metrics = {"hypervolume": hypervolume, "frontier/size": float(len(members))}
        if best is not None:
            metrics["frontier/best_miou"] = best
        if metrics != self._frontier_metrics:
            self._frontier_metrics = metrics
            update = RunUpdate("")
            update.add(metrics, self._over)  # the number of finished trials is the step of the study's run
            self._queue(update)
        self._queue(FrontierUpdate(frozenset(member.id for member in members)))

    def on_study_end(self, end: StudyEnd) -> None:
        """Log repeats and controls, the files and the students; end the runs; register the students."""
        for trial_id, confirmation in end.confirmed.items():
            numbers = {name: getattr(confirmation, name) for name in ("miou_mean", "miou_std", "gain", "p_frontier")}
            known = {f"confirm/{name}": value for name, value in numbers.items() if not math.isnan(value)}
            if known:
                update = RunUpdate(trial_id)
                update.add(known, 0)
                self._queue(update)
        self._queue(StudyFinished(end.status))
        self.close()

    def how_to_look(self) -> str:
        command = "mlflow ui --backend-store-uri " if self.uri.startswith("sqlite:") else ""
        return f"look at all trials: {command}{self.uri}"


def _whole(trial: TrialRecord) -> RunUpdate:
    """All data of a finished trial."""
    update = RunUpdate(trial.id)
    update.begin(trial)
    update.end(trial)
    # Trials of another study, and those that never started, get no run.
    foreign = trial.stage == "teacher" or bool(trial.origin)
    update.creates = not (foreign or (trial.state == "INFEASIBLE" and trial.epoch == 0))
    return update


def _versions() -> dict[str, str]:
    tags = {"kdsearch.version": __version__}
    git = shutil.which("git")  # an image need not have it
    if git is not None:
        head = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        if head.returncode == 0:
            tags["kdsearch.git_sha"] = head.stdout.strip()
    return tags
