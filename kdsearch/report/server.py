"""A study's results read back from a tracking server, for those who do not have its run folder."""

from __future__ import annotations

import contextlib
import math
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.config.search import main_cost
from kdsearch.errors import UserError
from kdsearch.report.results import Point, Results, TrialRow, budget, page_of, read_summary, searched
from kdsearch.tracking.mlflow.client import connect, find, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from kdsearch.config.space.search_space import SearchSpace

STAGES = {"FINISHED": "COMPLETE", "KILLED": "PRUNED", "FAILED": "FAIL"}


def results_of_server(run: str, uri: str | None) -> Results:
    """The results of the study whose parent run is `run` (`runs:/ID`) on the server, or in the database, at `uri`.

    The importance of settings and pictures are not there. Raises `UserError` where there is no such study.
    """
    from mlflow.exceptions import MlflowException

    run_id = run.removeprefix("runs:/").strip("/")
    uri = find(uri)
    client = connect(uri)
    shown = without_password(uri)
    try:
        parent = client.get_run(run_id)
        tags = parent.data.tags
        if tags.get("kdsearch.trial") != "" or "kdsearch.study" not in tags:
            above = tags.get("mlflow.parentRunId")
            hint = f" It is a trial of runs:/{above}." if above else ""
            raise UserError(f"{run} on {shown} is not the run of a kdsearch study.{hint}")
        query = f"tags.`mlflow.parentRunId` = '{run_id}'"
        children = client.search_runs([parent.info.experiment_id], query, max_results=50_000)
        with tempfile.TemporaryDirectory() as scratch:
            space, summary = _files(client, run_id, Path(scratch))
        histories = {c.info.run_id: client.get_metric_history(c.info.run_id, "val/miou") for c in children}
        volumes = client.get_metric_history(run_id, "hypervolume")
    except MlflowException as error:
        raise UserError(f"{run} cannot be read from {shown}: {error.message}") from error
    children = sorted(children, key=lambda child: child.info.start_time)
    names = _setting_names(space, children)
    rows = {}
    for child in children:
        curve = {int(metric.step): float(metric.value) for metric in histories[child.info.run_id]}
        row = _row(child, names, curve)
        rows[row.id] = row, child
    reported = {str(point["trial"]): point for point in summary["frontier"]}
    members = [name for name, (_, child) in rows.items() if child.data.tags.get("kdsearch.pareto") == "true"]
    points = [_point(*rows[name], reported.get(name, {}), uri) for name in members]
    teacher = rows["teacher"][0].miou if "teacher" in rows else None
    return Results(
        name=tags["kdsearch.study"],
        space=space.name,
        description=space.description,
        status={"FINISHED": "done", "FAILED": "failed", "KILLED": "interrupted"}.get(parent.info.status, "running"),
        objectives={str(name): direction for name, direction in space.search.objectives.items()},
        trials=[row for row, _ in rows.values()],
        points=sorted(points, key=lambda point: point.trial.cost(main_cost(space.search.objectives))),
        hypervolume=[metric.value for metric in volumes if metric.value > 0],
        importance={},
        teacher_miou=teacher if summary["teacher_miou"] is None else summary["teacher_miou"],
        summary={"kdsearch": tags.get("kdsearch.version", "of an unknown version"), **summary},
        searched=_ranges(space, names),
        budget=budget(space),
        space_yaml=space.to_yaml(),
        place=f"{run} on {shown}",
        server=shown if shown.startswith(("http://", "https://")) else "",
    )


def _files(client: MlflowClient, run_id: str, scratch: Path) -> tuple[SearchSpace, dict[str, Any]]:
    """The space and the summary among the artifacts; a study that is not over has the space alone."""
    from mlflow.exceptions import MlflowException

    from kdsearch.config.space.search_space import load_space
    from kdsearch.config.space.yaml_tree import dump_yaml

    there = {file.path for file in client.list_artifacts(run_id)}
    if "space.json" not in there:
        raise UserError(f"runs:/{run_id} has no space.json among its artifacts: its study did not get to its start.")
    file = scratch / "space.yaml"
    file.write_text(dump_yaml(_json(client.download_artifacts(run_id, "space.json", str(scratch)))))
    if "summary.json" in there:
        with contextlib.suppress(MlflowException):  # of a driver that is writing it at this moment
            client.download_artifacts(run_id, "summary.json", str(scratch))
    return load_space(file), read_summary(scratch / "summary.json")


def _json(path: str) -> Any:
    import json

    return json.loads(Path(path).read_text())


def _setting_names(space: SearchSpace, children: Sequence[Run]) -> list[str]:
    """Names of the flat settings that the space searches, and of others that differ between trials (branches do)."""
    flat = [_flat(name) for name in space.parameters()]
    seen: dict[str, set[str]] = {}
    for child in children:
        if child.data.tags.get("kdsearch.stage") == "search":
            for name, value in child.data.params.items():
                if name.startswith(("student.", "distill.", "train.")):
                    seen.setdefault(name, set()).add(value)
    return [name for name, values in seen.items() if name in flat or len(values) > 1]


def _ranges(space: SearchSpace, names: Sequence[str]) -> list[tuple[str, str]]:
    words: dict[str, list[str]] = {}
    for name, text in searched(space):
        words.setdefault(_flat(name), []).append(text)
    return [(name, "; or ".join(words.get(name, ["follows from a branch"]))) for name in names]


def _flat(name: str) -> str:
    return re.sub(r"\[[^\]]*\]", "", name)


def _row(run: Run, names: Sequence[str], curve: Mapping[int, float]) -> TrialRow:
    params, metrics, tags = run.data.params, run.data.metrics, run.data.tags
    stage = tags.get("kdsearch.stage", "search")
    width = f" w{params['student.width']}" if params.get("student.arch") == "clnet" else ""
    end = run.info.end_time
    return TrialRow(
        id=tags.get("kdsearch.trial", run.info.run_id),
        stage=stage,
        state=tags.get("kdsearch.state", STAGES.get(run.info.status, "RUNNING")),
        student=f"{params.get('student.arch', '')} {params.get('student.encoder', '')}{width}",
        epoch=max(curve, default=0),
        epochs=int(params.get("train.epochs", 0)),
        miou=metrics.get("val/miou", math.nan),
        gflops=metrics.get("cost/gflops", math.nan),
        params_m=metrics.get("cost/params_m", math.nan),
        seconds=0.0 if end is None else (end - run.info.start_time) / 1000,
        seed=int(params.get("train.seed", 0)),
        settings={name: _number(params[name]) for name in names if name in params} if stage == "search" else {},
        iou={name.removeprefix("val/iou/"): value for name, value in metrics.items() if name.startswith("val/iou/")},
        curve=curve,
        reason=tags.get("kdsearch.reason", ""),
        of=tags.get("kdsearch.of", ""),
        run=page_of(run.info.experiment_id, run.info.run_id),
        latency_ms=metrics.get("cost/latency_ms", math.nan),
    )


def _point(row: TrialRow, run: Run, reported: Mapping[str, Any], uri: str) -> Point:
    from kdsearch.search.confirm import Confirmation

    def known(name: str) -> float:
        value = reported.get(name, run.data.metrics.get(f"confirm/{name}"))
        return float(value) if isinstance(value, int | float) else math.nan

    numbers = {name: known(name) for name in Confirmation().numbers()}
    if math.isnan(numbers["seeds"]):
        numbers["seeds"] = 0
    download = ["mlflow", "artifacts", "download", "--run-id", run.info.run_id, "--artifact-path", "student",
                "--dst-path", row.id]  # fmt: skip
    again = ["kdsearch", "train", f"{row.id}/student/config.json", "--out", f"{row.id}-again"]
    return Point(
        trial=row,
        confirmed=numbers,
        gain_of_class={
            str(name): float(value) for name, value in dict(reported.get("gain_of_class", {})).items()
        },
        reproduce=f"MLFLOW_TRACKING_URI={shlex.quote(without_password(uri))} {shlex.join(download)}\n"
        + shlex.join(again),
    )  # fmt: skip


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
