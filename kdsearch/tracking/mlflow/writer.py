"""Writes every trial and the frontier to MLflow, in the process that `callback` starts."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

from kdsearch.io.atomic import write_json
from kdsearch.io.locks import acquire
from kdsearch.search.summary import StudySummary
from kdsearch.tracking.mlflow.client import MOST_RUNS, connect, without_password
from kdsearch.tracking.mlflow.messages import FrontierUpdate, Message, RunUpdate, StudyFinished, StudyHeader
from kdsearch.tracking.mlflow.model_registry import register
from kdsearch.tracking.mlflow.outbox import Outbox
from kdsearch.tracking.mlflow.ui_views import NOTE, experiment_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

GATHER_S = 1.0
"""Seconds that an update waits for later ones of the same run: a call costs as much with one metric as with many."""

FILES = (
    "frontier.html", "report.html", "space.yaml", "summary.json", "trials.parquet", "frontier.parquet", "frontier.png",
)  # fmt: skip
"""Files of the run folder that become artifacts of the study's run."""


class MLflowWriter:
    """A parent run for the study and a child run for each trial, in the experiment `kdsearch/<space>`.

    Calls are queued and made by one thread. While a server is away they are kept and repeated. Updates of a run within
    one second, or while an earlier one is queued, are sent in one call.
    """

    def __init__(self, header: StudyHeader) -> None:
        self.header, self.run = header, header.run
        self.outbox = Outbox(self._connect, header.drain_s)
        self._lock = self.run.tracking_lock.open("w")
        self._runs: dict[str, str] = {}
        self._sent: dict[str, int] = {}
        self._queued: dict[str, RunUpdate] = {}
        self._updating = threading.Lock()
        self._on_frontier: frozenset[str] = frozenset()
        self._page_sent = 0.0
        self._record_due = 0.0

    def begin(self) -> None:
        self.outbox.put(self._open)
        self.outbox.begin()

    def _connect(self) -> MlflowClient:
        # The process of a driver that was killed may still be sending. Held until this one ends.
        acquire(self._lock.fileno(), wait=True)
        return connect(self.header.uri)

    def receive(self, message: Message) -> None:
        """Queue the calls that a message needs."""
        match message:
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

    def _frontier(self, ids: frozenset[str]) -> None:
        def tag(client: MlflowClient) -> None:
            # Changed members only: a call per run at every change would grow with the square of the study.
            for trial_id in ids ^ self._on_frontier:
                if trial_id in self._runs:  # warm start brings points that have no run here
                    client.set_tag(self._runs[trial_id], "kdsearch.pareto", str(trial_id in ids).lower())
            self._on_frontier = ids

        self.outbox.put(tag)
        self.outbox.put(self._send_page)

    def _finish(self, status: str) -> None:
        """Log the result's files, close the runs, and put the frontier's students into the model registry."""
        path = self.run.path

        def call(client: MlflowClient) -> None:
            self._record_due = 0.0
            self._record_runs()
            for name in FILES:
                if (path / name).exists():
                    client.log_artifact(self._runs[""], str(path / name))
            for folder in sorted(self.run.students.iterdir()):
                if folder.name in self._runs:
                    client.log_artifacts(self._runs[folder.name], str(folder), "student")
            if status != "done":
                for run_id in self._runs.values():
                    if client.get_run(run_id).info.status == "RUNNING":
                        client.set_terminated(run_id, "KILLED")
            client.set_terminated(self._runs[""], {"done": "FINISHED", "failed": "FAILED"}.get(status, "KILLED"))

        self.outbox.put(call)
        if self.run.summary.exists():
            frontier = StudySummary.read(self.run.summary).frontier
            self.outbox.put(lambda client: register(client, path.name, frontier, self._runs, self.header.cost))

    # ---- calls, made by the thread -------------------------------------------------------------------------------

    def _open(self, client: MlflowClient) -> None:
        name = f"kdsearch/{self.header.space}"
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            local = (self.run.path / "artifacts").as_uri() if self.header.uri.startswith("sqlite:") else None
            experiment_id = client.create_experiment(name, artifact_location=local)
        else:
            experiment_id = experiment.experiment_id
        shown = {} if experiment is None else experiment.tags
        # A later study without latency leaves the column to those that have it.
        timed = self.header.timed or any("latency_ms" in value for value in shown.values())
        for key, value in experiment_tags(self.header.cost, timed).items():
            if shown.get(key) != value:  # an earlier version's, perhaps
                client.set_experiment_tag(experiment_id, key, value)
        self._experiment_id = experiment_id
        study = self.run.path.name
        known: dict[str, Run] = {}
        for found in client.search_runs([experiment_id], f"tags.`kdsearch.study` = '{study}'", max_results=MOST_RUNS):
            known[found.data.tags["kdsearch.trial"]] = found
        self._runs = {name: each.info.run_id for name, each in known.items()}
        self._on_frontier = frozenset(
            name for name, each in known.items() if each.data.tags.get("kdsearch.pareto") == "true"
        )
        if "" not in known:
            note = NOTE.format(runs=f"#/experiments/{experiment_id}/runs")
            tags = {"kdsearch.study": study, "kdsearch.trial": "", "mlflow.note.content": note, **self.header.tags}
            known[""] = client.create_run(experiment_id, run_name=study, tags=tags)
            self._runs[""] = known[""].info.run_id
        parent = known[""]
        client.update_run(parent.info.run_id, status="RUNNING")
        if not parent.data.params:
            client.log_inputs(parent.info.run_id, [_dataset(self.header.data)])
            client.log_dict(parent.info.run_id, self.header.settings, "space.json")
            RunUpdate("", params=self.header.params).send(client, parent.info.run_id, 0)
        self._catch_up(client, known)

    def _catch_up(self, client: MlflowClient, known: dict[str, Run]) -> None:
        """Complete the runs of earlier drivers from the trials of the storage."""
        for name, run in known.items():
            if name and run.info.status == "RUNNING":
                history = client.get_metric_history(run.info.run_id, "val/miou")
                self._sent[name] = max((metric.step for metric in history), default=0)
        for update in self.header.restored:
            if update.trial_id in known:
                if known[update.trial_id].info.status != "RUNNING":
                    continue
            elif not update.creates:
                continue
            self._send(client, update)

    def _send(self, client: MlflowClient, update: RunUpdate) -> None:
        """Send an update. Data that an interrupted call or driver has sent already are kept."""
        trial_id = update.trial_id
        self.outbox.wait_until(update.since + GATHER_S)
        with self._updating:
            if self._queued.get(trial_id) is update:
                del self._queued[trial_id]  # later updates go into the next call
        if update.begins and trial_id not in self._runs:
            tags = {
                "mlflow.parentRunId": self._runs[""], "kdsearch.study": self.run.path.name,
                "kdsearch.trial": trial_id, "kdsearch.pareto": "false", **update.tags,
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
        server = without_password(self.header.uri) if self.header.uri.startswith(("http://", "https://")) else ""
        record = {"server": server, "experiment": self._experiment_id, "runs": self._runs}
        write_json(self.run.tracking, record)
        self._record_due = time.monotonic() + 50 * (time.monotonic() - began)


def _dataset(data: dict[str, str]) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput

    return DatasetInput(Dataset(data["name"], data["digest"], "local", json.dumps({"uri": data["uri"]})))
