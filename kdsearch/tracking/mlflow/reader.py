"""A study read back from a tracking server, as plain values: its run, its trials' runs, its space and its summary."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.summary import StudySummary
from kdsearch.tracking.mlflow.address import find, without_password
from kdsearch.tracking.mlflow.client import MOST_RUNS, connect
from kdsearch.tracking.mlflow.escaping import unescape
from kdsearch.tracking.mlflow.problems import plain_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@dataclass(frozen=True)
class TrackedRun:
    """A run of a study or of a trial; `miou` maps epochs to `val/miou`, `page` is the fragment of its page.

    `status` is MLflow's; `seconds` are from start to end, 0 while it runs. Parameters are text, as MLflow keeps them.
    """

    id: str
    status: str
    page: str
    started: float
    seconds: float
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    miou: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrackedStudy:
    """The run of a study with those of its trials, in the order of their start.

    `space` is the tree of the resolved space; `server` the address without a password; `hypervolume` its history.
    """

    run: TrackedRun
    trials: Sequence[TrackedRun]
    space: Mapping[str, Any]
    summary: StudySummary
    hypervolume: Sequence[float]
    server: str


def read_study(run: str, uri: str | None) -> TrackedStudy:
    """The study whose parent run is `run` (`runs:/ID`) on the server, or in the database, at `uri`.

    Raises `UserError` where there is no such study.
    """
    run_id = run.removeprefix("runs:/").strip("/")
    uri = find(uri)
    shown = without_password(uri)
    with plain_errors(run, uri):
        client = connect(uri)
        parent = client.get_run(run_id)
        _check_is_study(parent, f"{run} on {shown}")
        query = f"tags.`mlflow.parentRunId` = '{run_id}'"
        children = client.search_runs([parent.info.experiment_id], query, max_results=MOST_RUNS)
        trials = [_tracked(child, client.get_metric_history(child.info.run_id, "val/miou")) for child in children]
        with tempfile.TemporaryDirectory() as scratch:
            space, summary = _artifacts(client, parent, Path(scratch))
        volumes = client.get_metric_history(run_id, "hypervolume")
    return TrackedStudy(
        run=_tracked(parent),
        trials=sorted(trials, key=lambda trial: trial.started),
        space=space,
        summary=summary,
        hypervolume=[float(metric.value) for metric in volumes if metric.value > 0],
        server=shown,
    )


def run_folder_of(run: str, uri: str | None) -> Path:
    """The run folder of the study whose parent run is `run` (`runs:/ID`), from the path of its data store.

    Raises `UserError` where there is no such study, or its run folder cannot be reached from this machine.
    """
    uri = find(uri)
    shown = f"{run} on {without_password(uri)}"
    with plain_errors(run, uri):
        parent = connect(uri).get_run(run.removeprefix("runs:/").strip("/"))
    _check_is_study(parent, shown)
    sources = [json.loads(each.dataset.source).get("uri", "") for each in parent.inputs.dataset_inputs]
    stores = [Path(unquote(urlsplit(source).path)) for source in sources if source.startswith("file:")]
    for store in stores:
        folder = RunFolder(store.parents[2] / parent.data.tags["kdsearch.study"])
        if folder.journal.is_file() and store.parent == folder.stores:
            return folder.path
    where = f" in {stores[0].parents[2]}" if stores else ""
    raise UserError(
        f"The run folder of {shown} cannot be found{where}; mount its storage on this machine, or give the run folder."
    )


def noted_pages(run: RunFolder) -> tuple[str, dict[str, str]]:
    """The server's address and the fragment of each trial's page, from `tracking.json` of a run folder.

    Links are a convenience: where the file is missing or damaged there are none.
    """
    try:
        noted = json.loads(run.tracking.read_text())
        pages = {str(trial): page_of(noted["experiment"], run_id) for trial, run_id in noted["runs"].items()}
        server = str(noted["server"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", {}
    return web_address(server), pages


def page_of(experiment: object, run: object) -> str:
    """The fragment of a run's page in MLflow's interface; empty for values that cannot be ids."""
    ids = (str(experiment), str(run))
    return "#/experiments/{}/runs/{}".format(*ids) if all(map(str.isalnum, ids)) else ""


def web_address(uri: str) -> str:
    """`uri` where a browser can open it, else empty."""
    return uri if uri.startswith(("http://", "https://")) else ""


def _check_is_study(run: Run, name: str) -> None:
    tags = run.data.tags
    if tags.get("kdsearch.trial") != "" or "kdsearch.study" not in tags:
        above = tags.get("mlflow.parentRunId")
        hint = f" It is a trial of runs:/{above}." if above else ""
        raise UserError(f"{name} is not the run of a kdsearch study.{hint}")


def _tracked(run: Run, history: Sequence[Any] = ()) -> TrackedRun:
    end = run.info.end_time
    return TrackedRun(
        id=run.info.run_id,
        status=run.info.status,
        page=page_of(run.info.experiment_id, run.info.run_id),
        started=run.info.start_time / 1000,
        seconds=0.0 if end is None else (end - run.info.start_time) / 1000,
        tags=dict(run.data.tags),
        params={unescape(name): value for name, value in run.data.params.items()},
        metrics={unescape(name): value for name, value in run.data.metrics.items()},
        miou={int(metric.step): float(metric.value) for metric in history},
    )


def _artifacts(client: MlflowClient, run: Run, scratch: Path) -> tuple[dict[str, Any], StudySummary]:
    """The space and the summary among the artifacts; a study that is not over may have the space alone."""
    from mlflow.exceptions import MlflowException

    run_id = run.info.run_id
    names = {file.path for file in client.list_artifacts(run_id)}
    if "space.json" not in names:
        raise UserError(f"runs:/{run_id} has no artifact space.json: its study did not get to its start.")
    space: dict[str, Any] = json.loads(Path(client.download_artifacts(run_id, "space.json", str(scratch))).read_text())
    if "summary.json" in names:
        with contextlib.suppress(MlflowException):  # its driver is replacing it
            client.download_artifacts(run_id, "summary.json", str(scratch))
    summary = StudySummary.read_or_empty(scratch / "summary.json", str(space.get("name", "")))
    if "kdsearch.version" in run.data.tags and "summary.json" not in names:
        summary = replace(summary, kdsearch=run.data.tags["kdsearch.version"])
    return space, summary
