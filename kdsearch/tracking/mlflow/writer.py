"""Writes every trial and the frontier to MLflow, in the process that `callback` starts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.io.atomic import write_json
from kdsearch.io.locks import acquire
from kdsearch.search.summary import StudySummary
from kdsearch.tracking.mlflow.address import SERVERS, without_password
from kdsearch.tracking.mlflow.messages import FrontierUpdate, Message, RunUpdate, StudyData, StudyFinished, StudyHeader
from kdsearch.tracking.mlflow.model_registry import register
from kdsearch.tracking.mlflow.opening import open_study
from kdsearch.tracking.mlflow.outbox import Outbox

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

GATHER_S = 1.0
"""Seconds that an update waits for later ones of the same run: a call costs as much with one metric as with many."""

FILES = (
    "frontier.html", "report.html", "space.yaml", "summary.json", "trials.parquet", "frontier.parquet", "frontier.png",
)  # fmt: skip
"""Files of the run folder that become artifacts of the study's run."""

STATUS_OF_STUDY = {"done": "FINISHED", "failed": "FAILED"}


class MLflowWriter:
    """A parent run for the study and a child run for each trial, in the experiment `kdsearch/<space>`.

    Calls are queued and made by one thread. While a server is away they are kept and repeated. Updates of a run within
    one second, or while an earlier one is queued, are sent in one call. `on_refusal` gets the reason of the first call
    that MLflow refuses.
    """

    def __init__(self, header: StudyHeader, on_refusal: Callable[[str], None]) -> None:
        self.header, self.run = header, header.run
        self.outbox = Outbox(header.drain_s, self._ping, on_refusal)
        self._lock = self.run.tracking_lock.open("w")
        self._runs: dict[str, str] = {}
        self._sent: dict[str, int] = {}
        self._queued: dict[str, RunUpdate] = {}
        self._updating = threading.Lock()
        self._on_frontier: set[str] = set()
        self._page_sent = 0.0
        self._record_due = 0.0

    def open(self) -> None:
        """Open the study and start to make calls. Raises `UserError` where MLflow cannot be written."""
        # The process of a driver that was killed may still be sending. Held until this one ends.
        acquire(self._lock.fileno(), wait=True)
        self._study = open_study(self.header)
        self._experiment_id = self._study.experiment_id
        self._runs = {name: each.info.run_id for name, each in self._study.runs.items()}
        self._on_frontier = {
            name for name, each in self._study.runs.items() if each.data.tags.get("kdsearch.pareto") == "true"
        }
        self._record_runs()
        self.outbox.begin(self._study.client)

    def withdraw(self) -> None:
        """Delete the run of a study that started no trial, unless an earlier driver created it."""
        if self._study.is_new:
            self.outbox.put(lambda client: client.delete_run(self._runs[""]))

    def _ping(self, client: MlflowClient) -> None:
        client.get_run(self._runs[""])

    def receive(self, message: Message) -> None:
        """Queue the calls that a message needs."""
        match message:
            case StudyData():
                self._begin(message)
            case RunUpdate():
                self._update(message)
            case FrontierUpdate():
                self._frontier(message.trial_ids)
            case StudyFinished():
                self._finish(message.status)
            case _:
                raise AssertionError(f"unexpected message {message!r}")

    # ---- messages ----------------------------------------------------------------------------------------------------

    def _update(self, update: RunUpdate) -> None:
        """Merge an update with a queued one of the same run, which keeps its place in the queue."""
        with self._updating:
            queued = self._queued.get(update.trial_id)
            if queued is not None:
                queued.merge(update)
            else:
                self._queued[update.trial_id] = update
                self.outbox.put(lambda client: self._send(client, update))

    def _begin(self, study: StudyData) -> None:
        run_id = self._runs[""]
        if not self._study.runs[""].inputs.dataset_inputs:
            self.outbox.put(lambda client: client.log_inputs(run_id, [_dataset(study.data)]))
        for name, run in self._study.runs.items():
            if name and run.info.status == "RUNNING":
                self.outbox.put(partial(self._read_sent, name=name))
        # Completes the runs of earlier drivers from the trials of the storage.
        for update in study.restored:
            known = self._study.runs.get(update.trial_id)
            if update.creates if known is None else known.info.status == "RUNNING":
                self.outbox.put(partial(self._send, update=update))

    def _frontier(self, ids: frozenset[str]) -> None:
        def tag(client: MlflowClient) -> None:
            # Changed members only: a call per run at every change would grow with the square of the study.
            for trial_id in sorted(ids ^ self._on_frontier):
                if trial_id in self._runs:  # warm start brings points that have no run here
                    client.set_tag(self._runs[trial_id], "kdsearch.pareto", str(trial_id in ids).lower())
                self._on_frontier ^= {trial_id}

        self.outbox.put(tag)
        self.outbox.put(self._send_page)

    def _finish(self, status: str) -> None:
        """Log the result's files, close the runs, and put the frontier's students into the model registry.

        Each is a call of its own: one that is refused takes no other with it.
        """
        self.outbox.put(self._record_all)
        for name in FILES:
            self.outbox.put(partial(self._send_file, name=name))
        for folder in sorted(self.run.students.iterdir()):
            self.outbox.put(partial(self._send_student, folder=folder))
        if status != "done":
            self.outbox.put(self._end_trials)
        self.outbox.put(lambda client: client.set_terminated(self._runs[""], STATUS_OF_STUDY.get(status, "KILLED")))
        self.outbox.put(self._register)

    # ---- calls, made by the thread -------------------------------------------------------------------------------

    def _record_all(self, client: MlflowClient) -> None:
        self._record_due = 0.0
        self._record_runs()

    def _send_file(self, client: MlflowClient, name: str) -> None:
        if (self.run.path / name).exists():
            client.log_artifact(self._runs[""], str(self.run.path / name))

    def _send_student(self, client: MlflowClient, folder: Path) -> None:
        if folder.name in self._runs:
            client.log_artifacts(self._runs[folder.name], str(folder), "student")

    def _end_trials(self, client: MlflowClient) -> None:
        for run_id in self._runs.values():
            if client.get_run(run_id).info.status == "RUNNING":
                client.set_terminated(run_id, "KILLED")

    def _register(self, client: MlflowClient) -> None:
        if self.run.summary.exists():
            frontier = StudySummary.read(self.run.summary).frontier
            register(client, self.run.path.name, frontier, self._runs, self.header.cost)

    def _read_sent(self, client: MlflowClient, name: str) -> None:
        """Epochs that an earlier driver has sent of a trial that goes on."""
        history = client.get_metric_history(self._runs[name], "val/miou")
        self._sent[name] = max((metric.step for metric in history), default=0)

    def _send(self, client: MlflowClient, update: RunUpdate) -> None:
        """Send an update. Data that an interrupted call or driver has sent already are kept."""
        trial_id = update.trial_id
        self.outbox.wait_until(update.since + GATHER_S)
        with self._updating:
            if self._queued.get(trial_id) is update:
                del self._queued[trial_id]  # later updates go into the next call
        if trial_id not in self._runs and not update.begins:
            raise LookupError(f"{trial_id} has no run, since MLflow refused to create it")
        if update.begins and trial_id not in self._runs:
            tags = {
                "mlflow.parentRunId": self._runs[""], "kdsearch.study": self.run.path.name,
                "kdsearch.trial": trial_id, "kdsearch.pareto": "false", **update.short_tags(),
            }  # fmt: skip
            run = client.create_run(self._experiment_id, run_name=update.begins, tags=tags)
            self._runs[trial_id], update.tags = run.info.run_id, {}
            self._record_runs()
        elif update.begins:
            client.update_run(self._runs[trial_id], status="RUNNING")
            if "cost/gflops" in client.get_run(self._runs[trial_id]).data.metrics:
                update.costs = {}
        sent = update.send(client, self._runs[trial_id], self._sent.get(trial_id, 0))
        if trial_id:  # epochs are sent once; the run of the study may get further metrics at the same step
            self._sent[trial_id] = max(sent, self._sent.get(trial_id, 0))

    def _send_page(self, client: MlflowClient) -> None:
        """Send the frontier's page again where it has changed."""
        page = self.run.path / "frontier.html"
        written = page.stat().st_mtime if page.exists() else 0.0
        if written > self._page_sent:
            client.log_artifact(self._runs[""], str(page))
            self._page_sent = written

    def _record_runs(self) -> None:
        """Record the addresses of the runs in the run folder, for links in the pages; in at most 2 % of the time."""
        began = time.monotonic()
        if began < self._record_due:
            return
        server = without_password(self.header.uri) if self.header.uri.split("://")[0] in SERVERS else ""
        record = {"server": server, "experiment": self._experiment_id, "runs": self._runs}
        write_json(self.run.tracking, record)
        self._record_due = time.monotonic() + 50 * (time.monotonic() - began)


def _dataset(data: dict[str, str]) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput

    return DatasetInput(Dataset(data["name"], data["digest"], "local", json.dumps({"uri": data["uri"]})))
