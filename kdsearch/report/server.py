"""The results of a study from a tracking server, for readers without its run folder."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kdsearch.config.metrics import main_cost
from kdsearch.config.networks import network_name_of
from kdsearch.config.space.search_space import space_from_text
from kdsearch.config.space.yaml_tree import dump_yaml
from kdsearch.report.results import MemberRow, Results, TrialRow
from kdsearch.report.space_tables import search_budget, setting_ranges
from kdsearch.search.confirm import Confirmation
from kdsearch.search.summary import FrontierPoint
from kdsearch.tracking.mlflow.reader import TrackedRun, read_study, web_address

if TYPE_CHECKING:
    from kdsearch.config.space.search_space import SearchSpace

STATUSES = {"FINISHED": "done", "FAILED": "failed", "KILLED": "interrupted"}
STATES = {"FINISHED": "COMPLETE", "KILLED": "PRUNED", "FAILED": "FAIL"}
"""Status of a study and state of a trial by MLflow's status of its run."""


def results_of_server(run: str, uri: str | None) -> Results:
    """The results of the study whose parent run is `run` (`runs:/ID`) on the server, or in the database, at `uri`.

    A server has neither the importance of settings nor pictures. Raises `UserError` where there is no such study.
    """
    study = read_study(run, uri)
    space = space_from_text(dump_yaml(dict(study.space)), f"{run}/space.json")
    names = _setting_names(space, study.trials)
    rows = [_trial_row(trial, names) for trial in study.trials]
    points = [
        _member_row(row, trial, study.summary.point(row.id), study.server)
        for row, trial in zip(rows, study.trials, strict=True)
        if trial.tags.get("kdsearch.pareto") == "true"
    ]
    objectives = {str(name): direction for name, direction in space.search.objectives.items()}
    summary = study.summary
    if not summary.frontier:  # a running study has its frontier in the tags alone
        members = [_frontier_point(point) for point in points if _is_whole(point.trial, main_cost(objectives))]
        summary = replace(summary, frontier=members, objectives=objectives)
    teacher = next((row.miou for row in rows if row.id == "teacher"), None)
    results = Results(
        name=study.run.tags["kdsearch.study"],
        space=space.name,
        description=space.description,
        status=STATUSES.get(study.run.status, "running"),
        objectives=objectives,
        trials=rows,
        points=points,
        hypervolume=study.hypervolume,
        importance={},
        teacher_miou=teacher if study.summary.teacher_miou is None else study.summary.teacher_miou,
        summary=summary,
        searched=_ranges(space, names),
        budget=search_budget(space),
        space_yaml=space.to_yaml(),
        place=f"{run} on {study.server}",
        server=web_address(study.server),
    )
    points.sort(key=lambda point: point.trial.cost(results.main_cost))
    return results


def _setting_names(space: SearchSpace, trials: Sequence[TrackedRun]) -> list[str]:
    """Names of the flat settings that the space searches, and of others that differ between trials (branches do)."""
    flat = [_flat(name) for name in space.parameters()]
    seen: dict[str, set[str]] = {}
    for trial in trials:
        if trial.tags.get("kdsearch.stage") == "search":
            for name, value in trial.params.items():
                if name.startswith(("student.", "distill.", "train.")):
                    seen.setdefault(name, set()).add(value)
    return [name for name, values in seen.items() if name in flat or len(values) > 1]


def _ranges(space: SearchSpace, names: Sequence[str]) -> list[tuple[str, str]]:
    words: dict[str, list[str]] = {}
    for name, text in setting_ranges(space):
        words.setdefault(_flat(name), []).append(text)
    return [(name, "; or ".join(words.get(name, ["follows from a branch"]))) for name in names]


def _flat(name: str) -> str:
    return re.sub(r"\[[^\]]*\]", "", name)


def _trial_row(run: TrackedRun, names: Sequence[str]) -> TrialRow:
    params, metrics, tags = run.params, run.metrics, run.tags
    stage = tags.get("kdsearch.stage", "search")
    return TrialRow(
        id=tags.get("kdsearch.trial", run.id),
        stage=stage,
        state=tags.get("kdsearch.state", STATES.get(run.status, "RUNNING")),
        student=network_name_of(params),
        epoch=max(run.miou, default=0),
        epochs=int(params.get("train.epochs", 0)),
        miou=metrics.get("val/miou", math.nan),
        gflops=metrics.get("cost/gflops", math.nan),
        params_m=metrics.get("cost/params_m", math.nan),
        seconds=run.seconds,
        seed=int(params.get("train.seed", 0)),
        settings={name: _value(params[name]) for name in names if name in params} if stage == "search" else {},
        iou={name.removeprefix("val/iou/"): value for name, value in metrics.items() if name.startswith("val/iou/")},
        curve=run.miou,
        reason=tags.get("kdsearch.reason", ""),
        of=tags.get("kdsearch.of", ""),
        run=run.page,
        latency_ms=metrics.get("cost/latency_ms", math.nan),
    )


def _member_row(row: TrialRow, run: TrackedRun, point: FrontierPoint | None, server: str) -> MemberRow:
    """A member of the frontier: its confirmation is read from the summary, else from the metrics of its run."""

    def known(name: str) -> float:
        value = None if point is None else getattr(point, name)
        return run.metrics.get(f"confirm/{name}", math.nan) if value is None else float(value)

    numbers = {name: known(name) for name in Confirmation().numbers()}
    if math.isnan(numbers["seeds"]):
        numbers["seeds"] = 0
    download = ["mlflow", "artifacts", "download", "--run-id", run.id, "--artifact-path", "student",
                "--dst-path", row.id]  # fmt: skip
    again = ["kdsearch", "train", f"{row.id}/student/config.json", "--out", f"{row.id}-again"]
    return MemberRow(
        trial=row,
        confirmed=numbers,
        gain_of_class={} if point is None else dict(point.gain_of_class),
        reproduce=f"MLFLOW_TRACKING_URI={shlex.quote(server)} {shlex.join(download)}\n{shlex.join(again)}",
    )


def _frontier_point(point: MemberRow) -> FrontierPoint:
    row = point.trial
    return FrontierPoint(
        row.id, row.miou, row.gflops, row.params_m, latency_ms=row.latency_ms, miou_mean=point.known("miou_mean")
    )


def _is_whole(row: TrialRow, cost: str) -> bool:
    return all(map(math.isfinite, (row.miou, row.gflops, row.params_m, row.cost(cost))))


def _value(text: str) -> int | float | str:
    """A parameter as a number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
