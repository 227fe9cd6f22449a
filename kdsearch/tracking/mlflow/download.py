"""Students downloaded from MLflow: of a study's run, of a trial's run, or of a version in the model registry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.errors import UserError
from kdsearch.search.choice import STUDENT_FILES, Best, ChosenStudent, choose
from kdsearch.search.summary import StudySummary
from kdsearch.tracking.mlflow.address import find
from kdsearch.tracking.mlflow.client import MOST_RUNS, connect
from kdsearch.tracking.mlflow.problems import plain_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PATTERN = re.compile(r"(?:runs:/(?P<run>[\w-]+)|models:/(?P<name>[^/:@]+)(?:@(?P<alias>[\w-]+)|/(?P<version>\d+)))/?")


def from_mlflow(
    uri: str, tracking_uri: str | None, best: Best | None, budget: str | None, folder: Path
) -> ChosenStudent:
    """The student of `uri`, downloaded to `folder`.

    `uri` is `runs:/ID` of a study (then `best` and `budget` choose, as in a run folder) or of a trial,
    `models:/NAME@ALIAS` or `models:/NAME/VERSION`. Only files of known names are requested, so a server cannot choose
    a path on this machine. Raises `UserError` for a missing run or file, and for `best` or `budget` where the URI
    names one student.
    """
    match = PATTERN.fullmatch(uri)
    if match is None:
        raise UserError(f"{uri}: expected runs:/RUN_ID, models:/NAME@ALIAS or models:/NAME/VERSION.")
    tracking_uri = find(tracking_uri)
    with plain_errors(uri, tracking_uri):
        client = connect(tracking_uri)
        run = client.get_run(match["run"] or _version_run(client, match["name"], match["alias"], match["version"]))
        tags = run.data.tags
        if "kdsearch.trial" not in tags:
            raise UserError(f"{uri} is not a run of kdsearch: it has no tag kdsearch.trial.")
        trial = tags["kdsearch.trial"]
        if trial and (best or budget):
            raise UserError(f"{uri} names one student; leave --best and --budget out, or name the study's run.")
        parent = run if not trial else client.get_run(tags["mlflow.parentRunId"])
        summary = StudySummary.read(_download(client, parent, "summary.json", folder, "wait for the end of its study"))
        if trial:
            point, chosen = summary.point(trial), uri if match["name"] else "named by its run"
            if point is None:
                raise UserError(f"The trial {trial} is not on the frontier of its study, so its weights were not kept.")
        else:
            point, how = choose(summary.frontier, best or "miou", budget, summary.main_cost)
            chosen = f"best {best or 'miou'}, by {how}"
            run = _child(client, parent, point.trial)
        for name in STUDENT_FILES:
            _download(client, run, f"student/{name}", folder, "its student was not kept")
    return ChosenStudent(
        folder / "student", point, tags.get("kdsearch.study", ""), summary.space, summary.kdsearch, chosen,
        f"MLflow run {run.info.run_id}",
    )  # fmt: skip


def _version_run(client: MlflowClient, name: str, alias: str | None, version: str | None) -> str:
    found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
    if not found.run_id:
        raise UserError(f"models:/{name} version {found.version} was registered without a run; name one of kdsearch.")
    return str(found.run_id)


def _child(client: MlflowClient, parent: Run, trial: str) -> Run:
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", max_results=MOST_RUNS
    )
    for child in children:
        if child.data.tags.get("kdsearch.trial") == trial:
            return child
    raise UserError(f"The run {parent.info.run_id} has no trial {trial}.")


def _download(client: MlflowClient, run: Run, path: str, folder: Path, otherwise: str) -> Path:
    """The artifact `path` as a file of that name under `folder`."""
    parent, _, name = path.rpartition("/")
    if name not in {Path(artifact.path).name for artifact in client.list_artifacts(run.info.run_id, parent or None)}:
        raise UserError(f"The run {run.info.run_id} has no {path}: {otherwise}.")
    target, arrived = folder / path, folder / "arrived"
    for needed in (target.parent, arrived):
        needed.mkdir(exist_ok=True)
    file = Path(client.download_artifacts(run.info.run_id, path, str(arrived)))
    if not file.is_file() or not file.resolve().is_relative_to(arrived.resolve()):
        raise UserError(f"The run {run.info.run_id} gave no file {path}.")
    return file.replace(target)
