"""The MLflow callback: sends the events of a study to the process that writes MLflow.

MLflow takes more CPU than the rest of a driver. In a thread it would slow the study down.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import TracebackType
from urllib.parse import urlsplit

from kdsearch.config.metrics import main_cost
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.io.child_process import start_module
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.callbacks import StudyCallback, StudyEnd
from kdsearch.search.summary import StudySummary
from kdsearch.search.trial_record import TrialRecord
from kdsearch.tracking.mlflow.address import DATABASES, own_database, without_password
from kdsearch.tracking.mlflow.messages import (
    Close,
    Closed,
    FrontierUpdate,
    Message,
    Opened,
    Refused,
    Reply,
    RunUpdate,
    StudyData,
    StudyFinished,
    StudyHeader,
    Waiting,
)
from kdsearch.tracking.mlflow.outbox import DRAIN_S, Losses
from kdsearch.version import __version__

REPLY_S = 30.0
"""Seconds beyond `drain_s` that a reply of the process is waited for."""
NOTIFY_S = 10.0
"""Seconds after which the user is notified of a wait for MLflow, at the start and at the end."""
OPEN_S = 300.0
"""Seconds that the first calls may take: tables of a new database, or an earlier driver's process that still sends."""


class MLflowCallback(StudyCallback):
    """Tracks a study in MLflow, by default in `mlflow.db` of the run folder; see `MLflowWriter` for the runs.

    `start` writes the run of the study, and `wait_until_open` raises `UserError` where MLflow refuses that. From then
    on a study never waits for its tracking and never fails because of it: `losses` counts the calls that MLflow
    lacks at the end, with the first reason. The process sends every message that it received before the death of its
    driver; where the process was killed too, epochs before the last one of a trial are missing from the curves. At the
    end a server that does not answer is waited for `drain_s` seconds.
    """

    def __init__(
        self,
        uri: str | None,
        space: SearchSpace,
        run: RunFolder,
        say: Callable[[str], None],
        resumed: bool = False,
        drain_s: float = DRAIN_S,
    ) -> None:
        self.uri = uri or own_database(run)
        self._say = say
        self._over = 0
        self._frontier_metrics: dict[str, float] = {}
        search = space.search
        self._header = StudyHeader(
            uri=self.uri,
            is_own=uri is None,
            run=run,
            space=space.name,
            cost=main_cost(search.objectives),
            timed=search.latency is not None,
            settings=space.resolved(),
            params={f"search.{name}": str(value) for name, value in search.model_dump(mode="json").items()},
            tags=_versions(),
            resumed=resumed,
            drain_s=drain_s,
        )
        self._messages: SimpleQueue[Message] = SimpleQueue()
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._last_reply = 0.0
        self._shown = without_password(self.uri)
        self._notify_at = math.inf
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._is_study = False
        """Whether a trial was begun: a study without one is taken back at the end."""
        self.losses = Losses()
        """What MLflow does not have; known after `close`."""

    def start(self) -> None:
        """Start the process that writes. It opens the study at once; `wait_until_open` has the outcome."""
        self._had_database = (self._header.run.path / "mlflow.db").exists()
        self._process, self._pipe = start_module("kdsearch.tracking.mlflow.process")
        self._pipe.send(self._header)
        if self._header.is_own and "MLFLOW_TRACKING_URI" in os.environ:
            self._say(
                "MLFLOW_TRACKING_URI is set, but a study goes there only with --tracking-uri; this one goes to "
                f"{self._shown}"
            )

    def wait_until_open(self) -> None:
        """Wait until the run of the study is written. Raises `UserError` where MLflow refuses that."""
        if self._thread is not None:
            return
        if problem := self._problem():
            self._end_process()
            raise UserError(problem)
        # A thread, so that the driver neither waits for the pipe nor is interrupted in the middle of a message.
        self._thread = threading.Thread(target=self._send, args=[self._pipe], daemon=True)
        self._thread.start()

    def _problem(self) -> str:
        """Why the study cannot be tracked, else empty."""
        started = time.monotonic()
        notify_at = started + NOTIFY_S
        while not self._pipe.poll(1.0):
            if time.monotonic() > notify_at:
                self._say(f"waiting for MLflow at {self._shown}")
                notify_at = math.inf
            if time.monotonic() > started + OPEN_S:
                return (
                    f"MLflow at {self._shown} did not do its first calls within {OPEN_S:.0f} s; look into the server's "
                    "log, or correct --tracking-uri."
                )
        try:
            opened = self._pipe.recv()
        except (EOFError, OSError):
            return f"The process that writes to MLflow at {self._shown} ended at once; its last lines say why."
        assert isinstance(opened, Opened)
        return opened.problem

    def _end_process(self) -> None:
        if self._process is not None:
            self._pipe.close()
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._header.is_own and not self._had_database:
            for half in self._header.run.path.glob("mlflow.db*"):
                half.unlink()

    def begin(self, store: Store, restored: Sequence[TrialRecord] = ()) -> None:
        """Send the data set, and the trials that were over before this driver began.

        MLflow gets the data of them that it lacks: run, settings, last epoch, state, end.
        """
        self._over = len(restored)
        self._is_study = bool(restored)
        data = {"name": store.info.name, "digest": store.fingerprint[:36], "uri": store.path.as_uri()}
        self._queue(StudyData(data, [_whole(trial) for trial in restored]))

    def close(self) -> None:
        """Send all that is queued and end the process; safe to call again."""
        if self._process is None:
            return
        if self._thread is None:
            self._end_process()  # something else has ended the study before MLflow had opened it
            return
        process, self._process = self._process, None
        self._last_reply = time.monotonic()
        self._messages.put(Close(withdraw=not self._is_study))
        while self._thread.is_alive():
            self._thread.join(1.0)
            self._pass_on()
            if time.monotonic() > self._last_reply + self._header.drain_s + REPLY_S:
                process.kill()  # it hangs; the thread finds its pipe closed
        process.wait()
        self._pass_on()
        left = self._messages.qsize()  # where the process ended before the study
        self.losses = replace(self.losses, calls=self.losses.calls + left, unsent=self.losses.unsent + left)
        lost, reason = self.losses, self.losses.reason
        kept = "the run folder has every result, and --resume sends the missing ones."
        if lost.refused:
            self._say(f"MLflow at {self._shown} refused {lost.refused} of {lost.calls} calls, first: {reason}; {kept}")
        if lost.unsent:
            why = "" if lost.refused else f" ({reason})"
            self._say(f"{lost.unsent} of {lost.calls} calls did not reach {self._shown}{why}; {kept}")
        self._note_losses()

    def _note_losses(self) -> None:
        """Add the losses to the summary, which is complete by now: this callback is the last."""
        path = self._header.run.summary
        if (self.losses.refused or self.losses.unsent) and path.exists():
            facts = {"uri": self._shown, **asdict(self.losses)}
            try:
                replace(StudySummary.read(path), tracking=facts).write(path)
            except OSError:
                traceback.print_exc()  # a full disk, which the status names; the console has shown the losses

    def _queue(self, message: Message) -> None:
        self._messages.put(message)
        self._pass_on()

    def _pass_on(self) -> None:
        """Pass on the lines of the sending thread: the driver's thread alone calls the callbacks of a study."""
        while not self._lines.empty():
            self._say(self._lines.get())

    def __enter__(self) -> MLflowCallback:
        self.start()
        self.wait_until_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _send(self, pipe: Connection) -> None:
        with pipe:
            try:
                while not isinstance(message := self._messages.get(), Close):
                    pipe.send(message)
                    while pipe.poll():
                        self._receive(pipe.recv())
                pipe.send(message)
                self._notify_at = time.monotonic() + NOTIFY_S
                while not isinstance(reply := pipe.recv(), Closed):
                    self._receive(reply)
                self.losses = reply.losses
            except (EOFError, OSError):
                self.losses = Losses(1, unsent=1, reason="the process that writes ended before the study")
                self._lines.put(f"The process that writes to {self._shown} ended; the study goes on without it")

    def _receive(self, reply: Reply) -> None:
        if isinstance(reply, Refused):
            self._lines.put(f"MLflow at {self._shown} refused a call ({reply.reason}); the study goes on without it")
        if isinstance(reply, Waiting):
            self._last_reply = time.monotonic()
            if self._last_reply > self._notify_at:
                self._lines.put(f"MLflow is being updated: {reply.calls} calls to {self._shown} are queued")
                self._notify_at = math.inf

    # ---- events --------------------------------------------------------------------------------------------------

    def on_trial_start(self, trial: TrialRecord) -> None:
        self._is_study = True
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
        self._is_study = True
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
        is_database = urlsplit(self.uri).scheme.partition("+")[0] in DATABASES
        address = f"mlflow ui --backend-store-uri {shlex.quote(self.uri)}" if is_database else self.uri
        return f"look at all trials: {address}"


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
