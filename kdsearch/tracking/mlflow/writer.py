"""Every trial and the frontier in MLflow. Here is the side of the process that writes; see `process` and `tracker`."""

from __future__ import annotations

import fcntl
import json
import threading
import time
from typing import TYPE_CHECKING

from kdsearch.export.source import read_summary
from kdsearch.io.atomic import write_json
from kdsearch.report.results import TRACKING
from kdsearch.tracking.mlflow.client import connect, without_password
from kdsearch.tracking.mlflow.messages import RunUpdate, StudyHeader
from kdsearch.tracking.mlflow.outbox import Outbox
from kdsearch.tracking.mlflow.registry import register
from kdsearch.tracking.mlflow.views import NOTE, experiment_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

GATHER_S = 1.0
"""How long news of a run wait for more of it: calls are what MLflow costs, not what is in them."""

FILES = (
    "frontier.html", "report.html", "space.yaml", "summary.json", "trials.parquet", "frontier.parquet", "frontier.png",
)  # fmt: skip
"""What of the run folder becomes an artifact of the study's run."""


class MLflowWriter:
    """A parent run for the study and a child run for each trial, in the experiment `kdsearch/<space>`.

    Calls are queued and made by one thread. While a server is away they are kept and tried again. What comes in of a
    run within a second, or while its last news wait for the server, goes out in one call.
    """

    def __init__(self, opening: StudyHeader) -> None:
        self.opening, self.run = opening, opening.run
        self.calls = Outbox(self._connect, opening.drain_s)
        self._lock = self.run.tracking_lock.open("w")
        self._runs: dict[str, str] = {}
        self._sent: dict[str, int] = {}
        self._updates: dict[str, RunUpdate] = {}
        self._updating = threading.Lock()
        self._on_frontier: set[str] = set()
        self._page_sent = 0.0
        self._note_due = 0.0

    def begin(self) -> None:
        self.calls.put(self._open)
        self.calls.begin()

    def _connect(self) -> MlflowClient:
        # The process of a driver that was killed may still be sending. Held until this one ends.
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return connect(self.opening.uri)

    def hear(self, news: RunUpdate | set[str] | str) -> None:
        """Put what is to be told into the queue."""
        match news:
            case RunUpdate():
                self._update(news)
            case set():
                self._frontier(news)
            case _:
                self._finish(news)

    # ---- news ----------------------------------------------------------------------------------------------------

    def _update(self, update: RunUpdate) -> None:
        """News of a run join those that wait to be sent; they are sent in the turn of the first."""
        with self._updating:
            waiting = self._updates.get(update.trial_id)
            if waiting is not None:
                waiting.merge(update)
            else:
                self._updates[update.trial_id] = update
                self.calls.put(lambda client: self._send(client, update))

    def _frontier(self, ids: set[str]) -> None:
        def tag(client: MlflowClient) -> None:
            # What has changed alone: a call for every run at every change would grow with the square of the study.
            for trial_id in ids ^ self._on_frontier:
                if trial_id in self._runs:  # warm start brings points that have no run here
                    client.set_tag(self._runs[trial_id], "kdsearch.pareto", str(trial_id in ids).lower())
            self._on_frontier = ids

        self.calls.put(tag)
        self.calls.put(self._send_page)

    def _finish(self, status: str) -> None:
        """Log the result's files, close the runs, and put the frontier's students into the model registry."""
        path = self.run.path

        def call(client: MlflowClient) -> None:
            self._note_due = 0.0
            self._note_runs()
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

        self.calls.put(call)
        if self.run.summary.exists():
            frontier = read_summary(self.run.summary)["frontier"]
            self.calls.put(lambda client: register(client, path.name, frontier, self._runs, self.opening.cost))

    # ---- calls, made by the thread -------------------------------------------------------------------------------

    def _open(self, client: MlflowClient) -> None:
        name = f"kdsearch/{self.opening.space}"
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            local = (self.run.path / "artifacts").as_uri() if self.opening.uri.startswith("sqlite:") else None
            experiment_id = client.create_experiment(name, artifact_location=local)
        else:
            experiment_id = experiment.experiment_id
        shown = {} if experiment is None else experiment.tags
        # A later study without latency leaves the column to those that have it.
        timed = self.opening.timed or any("latency_ms" in value for value in shown.values())
        for key, value in experiment_tags(self.opening.cost, timed).items():
            if shown.get(key) != value:  # an earlier version's, perhaps
                client.set_experiment_tag(experiment_id, key, value)
        self._experiment_id = experiment_id
        study = self.run.path.name
        known: dict[str, Run] = {}
        for found in client.search_runs([experiment_id], f"tags.`kdsearch.study` = '{study}'", max_results=50_000):
            known[found.data.tags["kdsearch.trial"]] = found
        self._runs = {name: each.info.run_id for name, each in known.items()}
        self._on_frontier = {name for name, each in known.items() if each.data.tags.get("kdsearch.pareto") == "true"}
        if "" not in known:
            note = NOTE.format(runs=f"#/experiments/{experiment_id}/runs")
            tags = {"kdsearch.study": study, "kdsearch.trial": "", "mlflow.note.content": note, **self.opening.tags}
            known[""] = client.create_run(experiment_id, run_name=study, tags=tags)
            self._runs[""] = known[""].info.run_id
        parent = known[""]
        client.update_run(parent.info.run_id, status="RUNNING")
        if not parent.data.params:
            client.log_inputs(parent.info.run_id, [_dataset(self.opening.data)])
            client.log_dict(parent.info.run_id, self.opening.settings, "space.json")
            RunUpdate("", params=self.opening.params).send(client, parent.info.run_id, 0)
        self._catch_up(client, known)

    def _catch_up(self, client: MlflowClient, known: dict[str, Run]) -> None:
        """Bring the runs of earlier drivers up to the record."""
        for name, run in known.items():
            if name and run.info.status == "RUNNING":
                history = client.get_metric_history(run.info.run_id, "val/miou")
                self._sent[name] = max((metric.step for metric in history), default=0)
        for update in self.opening.told:
            if update.trial_id in known:
                if known[update.trial_id].info.status != "RUNNING":
                    continue
            elif not update.is_new:
                continue
            self._send(client, update)

    def _send(self, client: MlflowClient, update: RunUpdate) -> None:
        """Bring a run up to date. Whatever is there of it, by a call or a driver that was cut off, is kept."""
        trial_id = update.trial_id
        self.calls.wait_until(update.since + GATHER_S)
        with self._updating:
            if self._updates.get(trial_id) is update:
                del self._updates[trial_id]  # from here on news wait for the next call
        if update.begins and trial_id not in self._runs:
            tags = {
                "mlflow.parentRunId": self._runs[""], "kdsearch.study": self.run.path.name,
                "kdsearch.trial": trial_id, "kdsearch.pareto": "false", **update.tags,
            }  # fmt: skip
            run = client.create_run(self._experiment_id, run_name=update.begins, tags=tags)
            self._runs[trial_id], update.tags = run.info.run_id, {}
            self._note_runs()
        elif update.begins:
            client.update_run(self._runs[trial_id], status="RUNNING")
            if "cost/gflops" in client.get_run(self._runs[trial_id]).data.metrics:
                update.costs = {}
        sent = update.send(client, self._runs[trial_id], self._sent.get(trial_id, 0))
        if trial_id:  # epochs are sent once; of the study there may be news at the same step
            self._sent[trial_id] = max(sent, self._sent.get(trial_id, 0))

    def _send_page(self, client: MlflowClient) -> None:
        """Bring the frontier's page up to date, where it is another than the last one sent."""
        page = self.run.path / "frontier.html"
        written = page.stat().st_mtime if page.exists() else 0.0
        if written > self._page_sent:
            client.log_artifact(self._runs[""], str(page))
            self._page_sent = written

    def _note_runs(self) -> None:
        """Tell the run folder where its trials' pages are, for links; for at most 2 % of the time."""
        began = time.monotonic()
        if began < self._note_due:
            return
        server = without_password(self.opening.uri) if self.opening.uri.startswith(("http://", "https://")) else ""
        noted = {"server": server, "experiment": self._experiment_id, "runs": self._runs}
        write_json(self.run.path / TRACKING, noted)
        self._note_due = time.monotonic() + 50 * (time.monotonic() - began)


def _dataset(data: dict[str, str]) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput

    return DatasetInput(Dataset(data["name"], data["digest"], "local", json.dumps({"uri": data["uri"]})))
