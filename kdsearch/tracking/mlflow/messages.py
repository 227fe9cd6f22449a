"""What MLflow has yet to be told: of a study as a whole, and of each run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdsearch.config.space.search_space import flatten
from kdsearch.io.run_folder import RunFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from kdsearch.search.storage.study_storage import TrialRecord

STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED", "INFEASIBLE": "KILLED"}

CALL_METRICS, CALL_PARAMS = 800, 100
"""Most metrics and parameters of one call; MLflow takes 1,000 entries, of which 100 are parameters and 100 tags."""


@dataclass
class RunUpdate:
    """News of one run, kept together until they are sent: while the server is busy or away, all that has come in.

    `begins` is the run's name where the news are that its trial begins; `costs` are known then.
    """

    trial_id: str
    begins: str = ""
    params: dict[str, str] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    status: str = ""
    is_new: bool = True
    """Whether a run is made for the trial where there is none."""
    since: float = field(default_factory=time.monotonic)
    """When the first of these news came in."""
    _points: dict[int, tuple[int, dict[str, float]]] = field(default_factory=dict)

    def add(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of now: MLflow shows when a point came about, not when it was sent."""
        self._add(metrics, step, int(time.time() * 1000))

    def merge(self, later: RunUpdate) -> None:
        """Take in later news of the same run."""
        self.begins, self.status = later.begins or self.begins, later.status or self.status
        self.params |= later.params
        self.costs |= later.costs
        self.tags |= later.tags
        for step, (at_ms, values) in later._points.items():
            self._add(values, step, at_ms)

    def _add(self, metrics: Mapping[str, float], step: int, at_ms: int) -> None:
        first_ms, others = self._points.get(step, (at_ms, {}))
        self._points[step] = first_ms, others | dict(metrics)

    def begin(self, record: TrialRecord) -> None:
        """The trial begins: name, stage, settings and costs."""
        settings = flatten(record.config)
        self.tags |= {"kdsearch.stage": record.stage, "kdsearch.state": "RUNNING"}
        if record.stage in ("confirm", "control"):
            self.tags["kdsearch.of"] = record.params["of"]
        self.begins = _run_name(record.id, self.tags, settings)
        self.params = {name: str(value) for name, value in settings.items()}
        self.costs = dict(record.cost)

    def end(self, record: TrialRecord) -> None:
        """The trial's outcome, with its last epoch."""
        if record.epoch:
            self.add(record.metrics, record.epoch)
        self.tags["kdsearch.state"] = record.state
        if record.reason:
            self.tags["kdsearch.reason"] = record.reason
        self.status = STATUS[record.state]

    def send(self, client: MlflowClient, run_id: str, after: int) -> int:
        """Log all this to `run_id`, without steps up to `after`; returns the last step that MLflow has now.

        A call that failed half way is made again as a whole: MLflow takes the same point twice as one.
        """
        from mlflow.entities import Metric, Param, RunTag

        if self.costs:
            self.add({f"cost/{name}": value for name, value in self.costs.items()}, 0)
        metrics = [
            Metric(clean(name), value, at_ms, step)
            for step, (at_ms, values) in self._points.items() if step > after or step == 0
            for name, value in values.items()
        ]  # fmt: skip
        params = [Param(clean(name), value[:6000]) for name, value in self.params.items()]
        tags = [RunTag(name, value[:5000]) for name, value in self.tags.items()]
        while metrics or params or tags:
            client.log_batch(run_id, metrics=metrics[:CALL_METRICS], params=params[:CALL_PARAMS], tags=tags)
            metrics, params, tags = metrics[CALL_METRICS:], params[CALL_PARAMS:], []
        if self.status:
            client.set_terminated(run_id, self.status)
        return max(self._points, default=after)


@dataclass(frozen=True)
class StudyHeader:
    """What MLflow is told of a study as a whole: plain data, so that the process needs nothing that spaces need.

    `data` has name, digest and URI of the data set; `told` the trials that were over before this driver began.
    """

    uri: str
    run: RunFolder
    space: str
    cost: str
    timed: bool
    settings: dict[str, Any]
    params: dict[str, str]
    tags: dict[str, str]
    data: dict[str, str]
    told: list[RunUpdate]
    drain_s: float


News = RunUpdate | set[str] | str | None
"""What a driver sends: news of a run, the ids on the frontier, how the study ended (`tables.Status`), None at last."""


def clean(name: str) -> str:
    """A name that MLflow takes: letters, digits and `_-. /` only."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)


def _run_name(trial_id: str, tags: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """The trial's id with its student; a repeat or a control with the trial that it belongs to."""
    purpose = {"confirm": "again", "control": "alone"}.get(tags["kdsearch.stage"])
    if purpose:
        return f"{trial_id} {tags['kdsearch.of']} {purpose}"
    # A network of two branches has an encoder in each.
    encoders = [value for name, value in settings.items() if name.startswith("student.") and name.endswith(".encoder")]
    return " ".join([trial_id, settings["student.arch"], *encoders])
