"""The results of a study as people are shown them: plain values, from the run folder alone, in any state of the study.

`frontier.html` and `report.html` are made from this, and so can be rebuilt at any time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsearch.config.search import main_cost
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.latency.report import LatencyReport, latency_report

if TYPE_CHECKING:
    from kdsearch.config.space.search_space import SearchSpace
    from kdsearch.search.storage.reader import History
    from kdsearch.search.storage.study_storage import TrialRecord

NAN = float("nan")
TRACKING = "tracking.json"
"""Where a run folder notes its runs on the tracking server."""


@dataclass(frozen=True)
class TrialRow:
    """One trial. `of` is the frontier member that a repeat or control was trained for, `run` the fragment of its
    page on a tracking server.

    `settings` are those that were searched; `iou` maps classes to the last epoch's IoU, `curve` epochs to mIoU.
    """

    id: str
    stage: str
    state: str
    student: str
    epoch: int
    epochs: int
    miou: float
    gflops: float
    params_m: float
    seconds: float
    seed: int
    settings: Mapping[str, Any]
    iou: Mapping[str, float] = field(default_factory=dict)
    curve: Mapping[int, float] = field(default_factory=dict)
    reason: str = ""
    of: str = ""
    run: str = ""
    latency_ms: float = NAN

    def cost(self, name: str) -> float:
        """A cost by the name that it has as an objective."""
        return {"gflops": self.gflops, "params_m": self.params_m, "latency_ms": self.latency_ms}[name]


@dataclass(frozen=True)
class Point:
    """One frontier member, with what repeats and controls say of it by the names of `Confirmation`."""

    trial: TrialRow
    confirmed: Mapping[str, float]
    gain_of_class: Mapping[str, float]
    reproduce: str
    """The command that trains it again."""
    control: str = ""
    """The trial whose weights show the same student alone."""

    def known(self, name: str) -> float | None:
        """A number of the confirmation; None where it is not known."""
        value = self.confirmed.get(name, NAN)
        return None if math.isnan(value) else value


@dataclass(frozen=True)
class Results:
    """A study: `summary` is `summary.json`, `searched` each setting with its range in words.

    `hypervolume` has one value for each complete trial of the search, in the order in which they ended.
    """

    name: str
    space: str
    description: str
    status: str
    objectives: Mapping[str, str]
    trials: Sequence[TrialRow]
    points: Sequence[Point]
    hypervolume: Sequence[float]
    importance: Mapping[str, Mapping[str, float]]
    teacher_miou: float | None
    summary: Mapping[str, Any]
    searched: Sequence[tuple[str, str]]
    budget: Sequence[tuple[str, str]]
    space_yaml: str
    place: str
    """Where it was read from: a folder, or a run on a server."""
    server: str = ""
    """Address of the tracking server, where it is one with pages."""

    @property
    def search(self) -> list[TrialRow]:
        return [trial for trial in self.trials if trial.stage == "search"]

    @property
    def main_cost(self) -> str:
        """The cost that the frontier is drawn against."""
        return main_cost(self.objectives)

    @property
    def latency(self) -> LatencyReport | None:
        """What was measured of latency; None where the study measured none."""
        return latency_report(self.summary)

    def knee(self) -> Point | None:
        """The best compromise of the frontier, as `kdsearch.export --best knee` takes it."""
        from kdsearch.search.pareto import knee

        if not self.points:
            return None
        return self.points[knee(np.array([[-p.trial.miou, p.trial.cost(self.main_cost)] for p in self.points]))]


def read_results(run: RunFolder) -> Results:
    """The results in a run folder. Raises `UserError` where there is no study in it."""
    from kdsearch.config.space.search_space import load_space
    from kdsearch.search.confirm import Confirmation, confirmations
    from kdsearch.search.storage.reader import read_history

    if not (run.space.is_file() and run.journal.is_file()):
        raise UserError(f"There is no study in {run.path}; name a run folder, such as runs/clfd-20260101-120000.")
    space = load_space(run.space)
    summary = read_summary(run.summary)
    history = read_history(run.journal, space.search.objectives)
    server, runs = _tracking(run)
    rows = {record.id: _row(record, runs.get(record.id, "")) for record in history.records}
    records = {record.id: record for record in history.records}
    # The driver says who is on the frontier: it knows all of the study's bounds.
    members = [records[point["trial"]] for point in summary["frontier"] if point["trial"] in records]
    confirmed = confirmations(members, history.records, space.confirm, space.search.objectives)
    points = [
        Point(
            rows[m.id], confirmed.get(m.id, Confirmation()).numbers(), confirmed[m.id].gain_of_class,
            _reproduce(run, m.id), _control(run, m, history.records, space),
        )
        for m in members
    ]  # fmt: skip
    return Results(
        name=run.path.name,
        space=space.name,
        description=space.description,
        status=summary["status"],
        objectives={str(name): direction for name, direction in space.search.objectives.items()},
        trials=list(rows.values()),
        points=points,
        hypervolume=_hypervolume(history, space, summary.get("reference")),
        importance=history.importance,
        teacher_miou=summary["teacher_miou"],
        summary=summary,
        searched=searched(space),
        budget=budget(space),
        space_yaml=space.to_yaml(),
        place=str(run.path),
        server=server,
    )


def read_summary(path: Path) -> dict[str, Any]:
    """`summary.json`, with what the pages need of it; a study that has not written it yet has an empty one."""
    summary: dict[str, Any] = {"status": "running", "frontier": [], "teacher_miou": None}
    try:
        read = json.loads(path.read_text())
    except FileNotFoundError:
        return summary
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); `--resume` the study to write it again.") from error
    frontier = read.get("frontier") if isinstance(read, dict) else None
    if not isinstance(frontier, list) or not all(isinstance(p, dict) and "trial" in p for p in frontier):
        raise UserError(f"{path} is not a study's summary of this version; `--resume` the study to write it again.")
    return {**summary, **read}


def searched(space: SearchSpace) -> list[tuple[str, str]]:
    """Each setting that a trial may differ in, with its range in words."""
    from kdsearch.config.space.ranges import Choice, IntLog, Log

    def words(domain: Any) -> str:
        if isinstance(domain, Choice):
            return "one of " + ", ".join("none" if c is None else str(c) for c in domain.categories)
        scale = " (log scale)" if isinstance(domain, Log | IntLog) else ""
        return f"{domain.low:g} to {domain.high:g}{scale}"

    return [(name, words(domain)) for name, domain in space.parameters().items()]


def budget(space: SearchSpace) -> list[tuple[str, str]]:
    """How the space was searched, in words."""
    search, train = space.search, space.default().trial.train
    rows = [
        ("trials", str(search.trials)),
        ("epochs of a trial", str(train.epochs)),
        ("objectives", ", ".join(f"{name} ({direction})" for name, direction in search.objectives.items())),
        ("bounds", ", ".join(f"{name} {bound}" for name, bound in search.constraints.items()) or "none"),
        *([("latency", f"on {search.latency}")] if search.latency is not None else []),
        ("sampler", search.sampler.name),
        ("early stopping", f"{search.stop}, after epochs {', '.join(map(str, search.rungs))}" if search.rungs else "-"),
        ("repeats and controls", f"{space.confirm.seeds} seeds for each point of the frontier"),
    ]
    return rows


def _row(record: TrialRecord, run: str) -> TrialRow:
    student = record.config.student
    return TrialRow(
        id=record.id,
        stage=record.stage,
        state=record.state,
        student=f"{student.arch} {student.encoder}" + (f" w{student.width}" if student.arch == "clnet" else ""),
        epoch=record.epoch,
        epochs=record.config.train.epochs,
        miou=record.miou,
        gflops=record.cost.get("gflops", NAN),
        params_m=record.cost.get("params_m", NAN),
        seconds=record.seconds,
        seed=record.config.train.seed,
        settings=dict(record.params) if record.stage == "search" else {},
        iou={
            name.removeprefix("val/iou/"): value
            for name, value in record.metrics.items()
            if name.startswith("val/iou/")
        },
        curve=dict(record.curve),
        reason=record.reason,
        of=str(record.params.get("of", "")) if record.stage != "search" else "",
        run=run,
        latency_ms=record.cost.get("latency_ms", NAN),
    )


def _control(run: RunFolder, member: TrialRecord, records: Sequence[TrialRecord], space: SearchSpace) -> str:
    from kdsearch.search.confirm import control_to_show

    control = control_to_show(member.config, records, space.confirm)
    return control.id if control is not None and run.student(control.id).is_dir() else ""


def _hypervolume(history: History, space: SearchSpace, reference: Any) -> list[float]:
    """The hypervolume after each complete trial; empty where the reference corner is not known."""
    from kdsearch.search.constraints import broken
    from kdsearch.search.pareto import costs, hypervolume, non_dominated

    objectives = space.search.objectives
    if not isinstance(reference, dict) or not set(objectives) - {"miou"} <= set(reference):
        return []
    corner = np.array([0.0 if name == "miou" else float(reference[name]) for name in objectives])
    bounds = space.search.constraints
    complete = [
        r for r in history.records
        if r.stage == "search" and r.state == "COMPLETE" and r.id in history.ended and not broken(bounds, r.known())
    ]  # fmt: skip
    front = np.empty((0, len(corner)))
    volumes = []
    for record in sorted(complete, key=lambda r: history.ended[r.id]):
        front = np.vstack([front, costs([record.values()], objectives)])
        front = front[non_dominated(front)]
        volumes.append(hypervolume(front, corner))
    return volumes


def _reproduce(run: RunFolder, trial_id: str) -> str:
    import shlex

    config = run.student(trial_id) / "config.json"
    return shlex.join(
        ["kdsearch", "train", str(config), "--storage", str(run.path.parent), "--out", f"{trial_id}-again"]
    )


def page_of(experiment: object, run: object) -> str:
    """The fragment of a run's page in MLflow's user interface; empty for what cannot be an id."""
    ids = (str(experiment), str(run))
    return "#/experiments/{}/runs/{}".format(*ids) if all(map(str.isalnum, ids)) else ""


def _tracking(run: RunFolder) -> tuple[str, dict[str, str]]:
    """The tracking server's address and the fragment of each trial's page there, as far as the tracker noted them."""
    try:
        noted = json.loads((run.path / TRACKING).read_text())
        runs = {str(trial): page_of(noted["experiment"], run_id) for trial, run_id in noted["runs"].items()}
        server = str(noted["server"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return "", {}  # links are a convenience: without that file the pages lead to the trial's own row
    return (server if server.startswith(("http://", "https://")) else ""), runs
