"""A study's news for MLflow, handed to the process that writes them.

MLflow takes more CPU than all else that a driver does. In a thread it would slow the study down.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING

from kdsearch import __version__
from kdsearch.config.search import main_cost
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.io.run_folder import RunFolder
from kdsearch.tracking.mlflow.messages import News, RunUpdate, StudyHeader
from kdsearch.tracking.mlflow.outbox import DRAIN_S

if TYPE_CHECKING:
    from kdsearch.data.store.store import Store
    from kdsearch.search.confirm import Confirmation
    from kdsearch.search.storage.study_storage import TrialRecord
    from kdsearch.tracking.artifacts import Status

ANSWER_S = 30.0
"""How much longer than the server its process is waited for."""
WORD_S = 10.0
"""After how long the user is told what the end of a study waits for."""


class MLflowCallback:
    """A listener that brings a study into MLflow: see `mlflow.Runs`. Without a URI, into `mlflow.db` in the run folder.

    A study never waits for its tracking and never fails because of it. `told` are the trials that were over before this
    driver began: they get what MLflow lacks of them (run, settings, last epoch, state, end). What a driver has said
    before it is killed its process still sends; where that was killed too, epochs before a trial's last are in no
    record, and missing from the curves. At the end a server that does not answer is waited for `drain_s` seconds.
    """

    def __init__(
        self,
        uri: str | None,
        space: SearchSpace,
        run: RunFolder,
        store: Store,
        say: Callable[[str], None],
        told: Sequence[TrialRecord] = (),
        drain_s: float = DRAIN_S,
    ) -> None:
        self.uri = uri or f"sqlite:///{run.path / 'mlflow.db'}"
        self._say = say
        self._over = len(told)
        self._frontier_metrics: dict[str, float] = {}
        search = space.search
        self._opening = StudyHeader(
            uri=self.uri,
            run=run,
            space=space.name,
            cost=main_cost(search.objectives),
            timed=search.latency is not None,
            settings=space.resolved(),
            params={f"search.{name}": str(value) for name, value in search.model_dump(mode="json").items()},
            data={"name": store.info.name, "digest": store.fingerprint[:36], "uri": store.path.as_uri()},
            tags=_versions(),
            told=[_whole(record) for record in told],
            drain_s=drain_s,
        )
        self._news: SimpleQueue[News | StudyHeader] = SimpleQueue()
        self._heard = 0.0
        self._unsent = 0

    def __enter__(self) -> MLflowCallback:
        pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "kdsearch.tracking.mlflow.process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                start_new_session=True,  # Ctrl-C is for the driver, which then has a last word to send
            )
        # A thread, so that the driver neither waits for the pipe nor is interrupted in the middle of a message.
        self._thread = threading.Thread(target=self._work, args=[pipe], daemon=True)
        self._news.put(self._opening)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._heard = time.monotonic()
        self._news.put(None)
        while self._thread.is_alive():
            self._thread.join(1.0)
            if time.monotonic() > self._heard + self._opening.drain_s + ANSWER_S:
                self._process.kill()  # it hangs; the thread finds its pipe closed
        self._process.wait()
        if self._unsent:
            self._say(
                f"{self._unsent} messages did not reach {self.uri}; the run folder has every result, and --resume "
                "sends what is missing there."
            )

    def _work(self, pipe: Connection) -> None:
        with pipe:
            try:
                while (news := self._news.get()) is not None:
                    pipe.send(news)
                pipe.send(None)
                ended = time.monotonic()
                while isinstance(answer := pipe.recv(), int):
                    self._heard = time.monotonic()
                    if self._heard > ended + WORD_S:
                        self._say(f"MLflow is being brought up to date: {answer} calls to {self.uri} wait")
                        ended = math.inf
                (self._unsent,) = answer
            except (EOFError, OSError):
                self._say(
                    f"The process that writes to {self.uri} ended before the study, which goes on without; the run "
                    "folder has every result, and --resume sends what is missing there."
                )

    # ---- events --------------------------------------------------------------------------------------------------

    def on_trial_start(self, record: TrialRecord) -> None:
        update = RunUpdate(record.id)
        update.begin(record)
        self._news.put(update)

    def on_trial_result(self, record: TrialRecord) -> None:
        if record.epoch < record.config.train.epochs:  # the last one goes with the trial's end, in one call
            update = RunUpdate(record.id)
            update.add(record.metrics, record.epoch)
            self._news.put(update)

    def on_trial_restart(self, record: TrialRecord, reason: str) -> None:
        self._news.put(RunUpdate(record.id, tags={"kdsearch.restarted": reason}))

    def on_trial_end(self, record: TrialRecord) -> None:
        self._over += 1
        update = RunUpdate(record.id)
        update.end(record)
        self._news.put(update)

    def on_frontier(self, members: list[TrialRecord], volume: float) -> None:
        best = max((record.miou for record in members), default=None)
        metrics = {"hypervolume": volume, "frontier/size": float(len(members))}
        if best is not None:
            metrics["frontier/best_miou"] = best
        if metrics != self._frontier_metrics:
            self._frontier_metrics = metrics
            update = RunUpdate("")
            update.add(metrics, self._over)  # the number of trials that are over is the study's clock
            self._news.put(update)
        self._news.put({record.id for record in members})

    def confirmed(self, confirmed: Mapping[str, Confirmation]) -> None:
        """Log what repeats and controls say of each frontier member to the member's run."""
        for trial_id, confirmation in confirmed.items():
            numbers = {name: getattr(confirmation, name) for name in ("miou_mean", "miou_std", "gain", "p_frontier")}
            known = {f"confirm/{name}": value for name, value in numbers.items() if not math.isnan(value)}
            if known:
                update = RunUpdate(trial_id)
                update.add(known, 0)
                self._news.put(update)

    def finish(self, status: Status) -> None:
        """Log the result's files, close the runs, and put the frontier's students into the model registry."""
        self._news.put(status)

    def how_to_look(self) -> str:
        command = "mlflow ui --backend-store-uri " if self.uri.startswith("sqlite:") else ""
        return f"look at all trials: {command}{self.uri}"


def _whole(record: TrialRecord) -> RunUpdate:
    """All that a record has of a trial that is over."""
    update = RunUpdate(record.id)
    update.begin(record)
    update.end(record)
    # Another study's, and those that were never started.
    foreign = record.stage == "teacher" or bool(record.origin)
    update.is_new = not (foreign or (record.state == "INFEASIBLE" and record.epoch == 0))
    return update


def _versions() -> dict[str, str]:
    tags = {"kdsearch.version": __version__}
    git = shutil.which("git")  # an image need not have it
    if git is not None:
        head = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        if head.returncode == 0:
            tags["kdsearch.git_sha"] = head.stdout.strip()
    return tags
