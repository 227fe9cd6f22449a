"""Every trial and the frontier in MLflow. Only the driver writes, from one thread, so the study never waits for it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from kdsearch import __version__
from kdsearch.bundle.source import read_summary
from kdsearch.config.search import main_cost
from kdsearch.config.space import SearchSpace
from kdsearch.run_folder import RunFolder, write_json
from kdsearch.tracking.calls import Calls
from kdsearch.tracking.registry import register
from kdsearch.tracking.results import TRACKING
from kdsearch.tracking.update import Update
from kdsearch.tracking.uris import without_password
from kdsearch.tracking.views import NOTE, experiment_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

    from kdsearch.data.store import Store
    from kdsearch.search.confirm import Confirmation
    from kdsearch.search.record import Record
    from kdsearch.tracking.tables import Status

GATHER_S = 1.0
"""How long news of a run wait for more of it: calls are what MLflow costs, not what is in them."""

FILES = (
    "frontier.html", "report.html", "space.yaml", "summary.json", "trials.parquet", "frontier.parquet", "frontier.png",
)  # fmt: skip
"""What of the run folder becomes an artifact of the study's run."""


class Tracker:
    """A parent run for the study and a child run for each trial, in the experiment `kdsearch/<space>`.

    Calls are queued and made by one thread. While a server is away they are kept and tried again; a study never fails
    because its tracking does. What comes in of a run within a second, or while its last news wait for the server, goes
    out in one call. Without a URI the database is `mlflow.db` in the run folder.

    `told` are the trials that were over before this driver began. The last driver may have been killed with calls in
    its queue; so those trials get what MLflow lacks of them: run, settings, last epoch, state and end. Epochs before
    the last that were still in the queue are in no record: their points are missing from the curves.
    """

    def __init__(
        self,
        uri: str | None,
        space: SearchSpace,
        run: RunFolder,
        store: Store,
        say: Callable[[str], None],
        told: Sequence[Record] = (),
    ) -> None:
        self.uri = uri or f"sqlite:///{run.path / 'mlflow.db'}"
        self.space, self.run, self.store = space, run, store
        self._cost = main_cost(space.search.objectives)
        self._calls = Calls(self.uri)
        self._told = told
        self._over = len(told)
        self._runs: dict[str, str] = {}
        self._sent: dict[str, int] = {}
        self._updates: dict[str, Update] = {}
        self._updating = threading.Lock()
        self._on_frontier: set[str] = set()
        self._frontier_metrics: dict[str, float] = {}
        self._page_sent = 0.0
        self._note_due = 0.0
        self._say = say

    def __enter__(self) -> Tracker:
        self._calls.put(self._open)
        self._calls.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if unsent := self._calls.end():
            self._say(
                f"{unsent} messages did not reach {self.uri}; the run folder has every result, and --resume sends "
                "what is missing there."
            )

    # ---- events --------------------------------------------------------------------------------------------------

    def started(self, record: Record) -> None:
        with self._update(record.id) as update:
            update.begin(record)

    def epoch(self, record: Record) -> None:
        if record.epoch < record.config.train.epochs:  # the last one goes with the trial's end, in one call
            with self._update(record.id) as update:
                update.add(record.metrics, record.epoch)

    def restarted(self, record: Record, reason: str) -> None:
        with self._update(record.id) as update:
            update.tags["kdsearch.restarted"] = reason

    def ended(self, record: Record) -> None:
        self._over += 1
        with self._update(record.id) as update:
            update.end(record)

    def frontier(self, members: list[Record], volume: float) -> None:
        ids = {record.id for record in members}
        best = max((record.miou for record in members), default=None)
        metrics = {"hypervolume": volume, "frontier/size": float(len(members))}
        if best is not None:
            metrics["frontier/best_miou"] = best
        if metrics != self._frontier_metrics:
            self._frontier_metrics = metrics
            with self._update("") as update:
                update.add(metrics, self._over)  # the number of trials that are over is the study's clock

        def tag(client: MlflowClient) -> None:
            # What has changed alone: a call for every run at every change would grow with the square of the study.
            for trial_id in ids ^ self._on_frontier:
                if trial_id in self._runs:  # warm start brings points that have no run here
                    client.set_tag(self._runs[trial_id], "kdsearch.pareto", str(trial_id in ids).lower())
            self._on_frontier = ids

        self._calls.put(tag)
        self._calls.put(self._send_page)

    def confirmed(self, confirmed: Mapping[str, Confirmation]) -> None:
        """Log what repeats and controls say of each frontier member to the member's run."""
        for trial_id, confirmation in confirmed.items():
            numbers = {name: getattr(confirmation, name) for name in ("miou_mean", "miou_std", "gain", "p_frontier")}
            known = {f"confirm/{name}": value for name, value in numbers.items() if not math.isnan(value)}
            if known:
                with self._update(trial_id) as update:
                    update.add(known, 0)

    def finish(self, status: Status) -> None:
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

        self._calls.put(call)
        if self.run.summary.exists():
            frontier = read_summary(self.run.summary)["frontier"]
            self._calls.put(lambda client: register(client, path.name, frontier, self._runs, self._cost))

    def how_to_look(self) -> str:
        command = "mlflow ui --backend-store-uri " if self.uri.startswith("sqlite:") else ""
        return f"look at all trials: {command}{self.uri}"

    # ---- calls, made by the thread -------------------------------------------------------------------------------

    def _open(self, client: MlflowClient) -> None:
        name = f"kdsearch/{self.space.name}"
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            local = (self.run.path / "artifacts").as_uri() if self.uri.startswith("sqlite:") else None
            experiment_id = client.create_experiment(name, artifact_location=local)
        else:
            experiment_id = experiment.experiment_id
        shown = {} if experiment is None else experiment.tags
        # A later study without latency leaves the column to those that have it.
        timed = self.space.search.latency is not None or any("latency_ms" in value for value in shown.values())
        for key, value in experiment_tags(self._cost, timed).items():
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
            tags = {"kdsearch.study": study, "kdsearch.trial": "", "mlflow.note.content": note, **_versions()}
            known[""] = client.create_run(experiment_id, run_name=study, tags=tags)
            self._runs[""] = known[""].info.run_id
        parent = known[""]
        client.update_run(parent.info.run_id, status="RUNNING")
        if not parent.data.params:
            client.log_inputs(parent.info.run_id, [_dataset(self.store)])
            client.log_dict(parent.info.run_id, self.space.resolved(), "space.json")
            search = {f"search.{k}": str(v) for k, v in self.space.search.model_dump(mode="json").items()}
            Update("", params=search).send(client, parent.info.run_id, 0)
        self._catch_up(client, known)

    def _catch_up(self, client: MlflowClient, known: dict[str, Run]) -> None:
        """Bring the runs of earlier drivers up to the record."""
        for name, run in known.items():
            if name and run.info.status == "RUNNING":
                history = client.get_metric_history(run.info.run_id, "val/miou")
                self._sent[name] = max((metric.step for metric in history), default=0)
        for record in self._told:
            if record.id in known:
                if known[record.id].info.status != "RUNNING":
                    continue
            elif record.stage == "teacher" or record.origin or (record.state == "INFEASIBLE" and record.epoch == 0):
                continue  # another study's, and trials that were never started
            update = Update(record.id)
            update.begin(record)
            update.end(record)
            self._send(client, update)

    @contextmanager
    def _update(self, trial_id: str) -> Iterator[Update]:
        """What the run of a trial (of the study: "") has yet to be told, to add to; it is sent in its turn."""
        with self._updating:
            update = self._updates.get(trial_id)
            if update is None:
                update = self._updates[trial_id] = Update(trial_id)
                self._calls.put(lambda client: self._send(client, update))
            yield update

    def _send(self, client: MlflowClient, update: Update) -> None:
        """Bring a run up to date. Whatever is there of it, by a call or a driver that was cut off, is kept."""
        trial_id = update.trial_id
        self._calls.wait_until(update.since + GATHER_S)
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
        server = without_password(self.uri) if self.uri.startswith(("http://", "https://")) else ""
        noted = {"server": server, "experiment": self._experiment_id, "runs": self._runs}
        write_json(self.run.path / TRACKING, noted)
        self._note_due = time.monotonic() + 50 * (time.monotonic() - began)


def _dataset(store: Store) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput

    source = json.dumps({"uri": store.path.as_uri()})
    return DatasetInput(Dataset(store.info.name, store.fingerprint[:36], "local", source))


def _versions() -> dict[str, str]:
    tags = {"kdsearch.version": __version__}
    git = shutil.which("git")  # an image need not have it
    if git is not None:
        head = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        if head.returncode == 0:
            tags["kdsearch.git_sha"] = head.stdout.strip()
    return tags
