"""Messages from the driver to the process that writes MLflow, and its replies."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdsearch.config.networks import network_name
from kdsearch.config.space.search_space import flatten
from kdsearch.io.run_folder import RunFolder
from kdsearch.tracking.mlflow.escaping import LONGEST_PARAM, LONGEST_TAG, cut, escape
from kdsearch.tracking.mlflow.outbox import Losses

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from kdsearch.search.callbacks import Status
    from kdsearch.search.trial_record import TrialRecord

STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED", "INFEASIBLE": "KILLED"}

BAD_REQUEST = 400
CALL_METRICS, CALL_PARAMS = 800, 100
"""Most metrics and parameters of one call; MLflow takes 1,000 entries, of which 100 are parameters and 100 tags."""


@dataclass
class RunUpdate:
    """New data of one run, merged until it is sent while the server is busy or away.

    `trial_id` is empty for the run of the study. `begins` is the name of the run where the trial starts; `costs` are
    known then.
    """

    trial_id: str
    begins: str = ""
    params: dict[str, str] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    status: str = ""
    creates: bool = True
    """Whether a run is created for a trial that has none."""
    since: float = field(default_factory=time.monotonic)
    """Time of the first of these data."""
    _points: dict[int, tuple[int, dict[str, float]]] = field(default_factory=dict)

    def add(self, metrics: Mapping[str, float], step: int) -> None:
        """Add metrics with the present time: MLflow shows the time of a point, not of the call that sent it."""
        self._add(metrics, step, int(time.time() * 1000))

    def merge(self, later: RunUpdate) -> None:
        """Add the data of a later update of the same run."""
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
        """Add the start of the trial: name, stage, settings and costs."""
        settings = flatten(record.config)
        self.tags |= {"kdsearch.stage": record.stage, "kdsearch.state": "RUNNING"}
        if record.stage in ("confirm", "control"):
            self.tags["kdsearch.of"] = record.params["of"]
        self.begins = _run_name(record, self.tags)
        self.params = {name: str(value) for name, value in settings.items()}
        self.costs = dict(record.cost)

    def end(self, record: TrialRecord) -> None:
        """Add the verdict on the trial and its last epoch."""
        if record.epoch:
            self.add(record.metrics, record.epoch)
        self.tags["kdsearch.state"] = record.state
        if record.reason:
            self.tags["kdsearch.reason"] = record.reason
        self.status = STATUS[record.state]

    def short_tags(self) -> dict[str, str]:
        """The tags, none longer than MLflow takes."""
        return {name: cut(value, LONGEST_TAG) for name, value in self.tags.items()}

    def send(self, client: MlflowClient, run_id: str, after: int) -> int:
        """Log all data to `run_id`, without steps up to `after`; returns the last step that MLflow has now.

        A call that failed half-way is repeated as a whole: MLflow counts the same point once. What MLflow refuses is
        raised when the rest was sent.
        """
        from mlflow.entities import Metric, Param, RunTag

        if self.costs:
            self.add({f"cost/{name}": value for name, value in self.costs.items()}, 0)
        metrics = [
            Metric(escape(name), value, at_ms, step)
            for step, (at_ms, values) in self._points.items() if step > after or step == 0
            for name, value in values.items()
        ]  # fmt: skip
        params = [Param(escape(name), cut(value, LONGEST_PARAM)) for name, value in self.params.items()]
        tags = [RunTag(name, value) for name, value in self.short_tags().items()]
        refusals: list[MlflowException] = []
        while metrics or params or tags:
            batch = {"metrics": metrics[:CALL_METRICS], "params": params[:CALL_PARAMS], "tags": tags}
            refusals += _log(client, run_id, batch)
            metrics, params, tags = metrics[CALL_METRICS:], params[CALL_PARAMS:], []
        if self.status:
            client.set_terminated(run_id, self.status)
        if refusals:
            raise refusals[0]
        return max(self._points, default=after)


@dataclass(frozen=True)
class StudyHeader:
    """The first message: the study as a whole, as plain data, so that the process needs no import of spaces.

    `is_own`: `uri` is the database of the run folder. `resumed`: an earlier driver may have created its runs.
    """

    uri: str
    is_own: bool
    run: RunFolder
    space: str
    cost: str
    timed: bool
    settings: dict[str, Any]
    params: dict[str, str]
    tags: dict[str, str]
    resumed: bool
    drain_s: float


@dataclass(frozen=True)
class StudyData:
    """The data set, by name, digest and URI, and the trials that were over before this driver began."""

    data: dict[str, str]
    restored: list[RunUpdate]


@dataclass(frozen=True)
class FrontierUpdate:
    """The trials on the frontier, by id."""

    trial_ids: frozenset[str]


@dataclass(frozen=True)
class StudyFinished:
    """The study is over; its files are in the run folder."""

    status: Status


@dataclass(frozen=True)
class Close:
    """The last message: send all that is queued, then end. `withdraw`: no trial was started; the study is no study."""

    withdraw: bool = False


Message = StudyHeader | StudyData | RunUpdate | FrontierUpdate | StudyFinished | Close


@dataclass(frozen=True)
class Opened:
    """Reply to the header: the study is in MLflow, or the sentence why it cannot be."""

    problem: str = ""


@dataclass(frozen=True)
class Refused:
    """Reply to the first call that MLflow refused: its reason."""

    reason: str


@dataclass(frozen=True)
class Waiting:
    """Reply to `Close`, once per second: the number of calls still queued."""

    calls: int


@dataclass(frozen=True)
class Closed:
    """The last reply: the calls that MLflow does not have."""

    losses: Losses


Reply = Opened | Refused | Waiting | Closed


def _log(client: MlflowClient, run_id: str, batch: dict[str, Any]) -> list[MlflowException]:
    """Log a batch; one with a value that MLflow refuses is logged kind by kind, so that a parameter costs no metric."""
    from mlflow.exceptions import MlflowException

    try:
        client.log_batch(run_id, **batch)
    except MlflowException as error:
        if error.get_http_status_code() != BAD_REQUEST:
            raise
        kinds = [{kind: entries} for kind, entries in batch.items() if entries]
        return [error] if len(kinds) < 2 else [each for kind in kinds for each in _log(client, run_id, kind)]
    return []


def _run_name(record: TrialRecord, tags: Mapping[str, str]) -> str:
    """The id of the trial with its student; of a repeat or control, with the trial that it belongs to."""
    purpose = {"confirm": "again", "control": "alone"}.get(record.stage)
    if purpose:
        return f"{record.id} {tags['kdsearch.of']} {purpose}"
    return f"{record.id} {network_name(record.config.student)}"
