"""The opening of a study in MLflow: its experiment, its run, its settings. These writes decide whether it is kept."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdsearch.errors import UserError
from kdsearch.tracking.mlflow.address import DEFAULT, sqlite_file, without_password
from kdsearch.tracking.mlflow.client import MOST_RUNS, connect
from kdsearch.tracking.mlflow.messages import RunUpdate, StudyHeader
from kdsearch.tracking.mlflow.problems import reason_of, remedy_of
from kdsearch.tracking.mlflow.ui_views import NOTE, experiment_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run


@dataclass
class OpenStudy:
    """A study that MLflow has: its experiment, and its runs by trial, with that of the study under ""."""

    client: MlflowClient
    experiment_id: str
    runs: dict[str, Run]
    is_new: bool
    """Whether its run was created now."""


def open_study(header: StudyHeader) -> OpenStudy:
    """Connect, find or create the run of the study, and write the tags, parameters and artifacts of every study.

    Raises `UserError` where MLflow refuses one of these calls; a run created here is deleted then.
    """
    try:
        client = connect(header.uri)
        return _open(client, header, _experiment(client, header))
    except UserError:
        raise
    except Exception as error:
        remedy = f"{remedy_of(error)} {DEFAULT}"
        if header.is_own:
            remedy = "give another --storage, or --tracking-uri"
        raise UserError(
            f"The study cannot be written to MLflow at {without_password(header.uri)} ({reason_of(error)}); {remedy}."
        ) from error


def _experiment(client: MlflowClient, header: StudyHeader) -> Experiment:
    name = f"kdsearch/{header.space}"
    experiment = client.get_experiment_by_name(name) or _created(client, name, _artifacts(header))
    if experiment.lifecycle_stage == "deleted":
        shown_uri = without_password(header.uri)
        restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        raise UserError(
            f"The experiment {name} was deleted in MLflow at {shown_uri}; restore it (MLFLOW_TRACKING_URI={shown_uri} "
            f"{restore}), or give the space another name (--set name=NAME)."
        )
    shown = experiment.tags
    # A later study without latency leaves the column to those that have it.
    timed = header.timed or any("latency_ms" in value for value in shown.values())
    for key, value in experiment_tags(header.cost, timed).items():
        if shown.get(key) != value:  # an earlier version's, perhaps
            client.set_experiment_tag(experiment.experiment_id, key, value)
    return experiment


def _created(client: MlflowClient, name: str, artifacts: str | None) -> Experiment:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_experiment(client.create_experiment(name, artifact_location=artifacts))
    except MlflowException:
        found = client.get_experiment_by_name(name)  # another study of the space may have begun at this moment
        if found is None:
            raise
        return found


def _artifacts(header: StudyHeader) -> str | None:
    """Where a database of one machine keeps artifacts: beside it. A server knows its own place."""
    if header.is_own:
        return (header.run.path / "artifacts").as_uri()
    database = sqlite_file(header.uri)
    return None if database is None else (database.absolute().parent / f"{database.stem}-artifacts").as_uri()


def _open(client: MlflowClient, header: StudyHeader, experiment: Experiment) -> OpenStudy:
    experiment_id = experiment.experiment_id
    parent = _noted_run(client, header, experiment_id) or _run_of_that_name(client, header, experiment_id)
    is_new = parent is None
    if parent is None:
        note = NOTE.format(runs=f"#/experiments/{experiment_id}/runs")
        study = header.run.path.name
        tags = {"kdsearch.study": study, "kdsearch.trial": "", "mlflow.note.content": note, **header.tags}
        parent = client.create_run(experiment_id, run_name=study, tags=tags)
    run_id = parent.info.run_id
    try:
        client.update_run(run_id, status="RUNNING")
        client.log_dict(run_id, header.settings, "space.json")
        params = {} if parent.data.params else header.params  # MLflow changes no parameter
        RunUpdate("", params=params, tags=header.tags).send(client, run_id, 0)
        query = f"tags.`mlflow.parentRunId` = '{run_id}'"
        children = [] if is_new else client.search_runs([experiment_id], query, max_results=MOST_RUNS)
    except Exception:
        if is_new:
            with suppress(Exception):  # the first refusal is the one to report
                client.delete_run(run_id)
        raise
    runs = {child.data.tags["kdsearch.trial"]: child for child in children if "kdsearch.trial" in child.data.tags}
    return OpenStudy(client, experiment_id, {"": parent, **runs}, is_new)


def _noted_run(client: MlflowClient, header: StudyHeader, experiment_id: str) -> Run | None:
    """The run that an earlier driver of this run folder noted, where this MLflow has it."""
    from mlflow.exceptions import MlflowException

    try:
        noted = str(json.loads(header.run.tracking.read_text())["runs"][""])
        run = client.get_run(noted)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
    return run if _is_of(run, header, experiment_id) else None


def _run_of_that_name(client: MlflowClient, header: StudyHeader, experiment_id: str) -> Run | None:
    """The run of a resumed study whose folder has no note of it. A new study never takes over that of somebody else."""
    if not header.resumed:
        return None
    # A filter has no escape for quotes.
    pattern = re.sub(r"[^\w .-]", "_", header.run.path.name)
    found = client.search_runs([experiment_id], f"tags.`kdsearch.study` LIKE '{pattern}'", max_results=MOST_RUNS)
    return next((run for run in found if _is_of(run, header, experiment_id)), None)


def _is_of(run: Run, header: StudyHeader, experiment_id: str) -> bool:
    tags: dict[str, Any] = run.data.tags
    return (
        run.info.lifecycle_stage == "active"
        and run.info.experiment_id == experiment_id
        and tags.get("kdsearch.study") == header.run.path.name
        and tags.get("kdsearch.trial") == ""
    )
