"""The results of a study for its pages: plain values, read from the run folder alone, in any state of the study."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsearch.config.metrics import COSTS, main_cost
from kdsearch.config.networks import network_name
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.report import measurements
from kdsearch.report.measurements import Measurement
from kdsearch.report.space_tables import search_budget, setting_ranges
from kdsearch.search.latency.report import LatencyReport, latency_report
from kdsearch.search.summary import StudySummary
from kdsearch.tracking.mlflow.reader import noted_pages

if TYPE_CHECKING:
    from kdsearch.config.space.search_space import SearchSpace
    from kdsearch.search.storage.reader import StudyHistory
    from kdsearch.search.trial_record import TrialRecord

NAN = float("nan")


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    `student` names its network; `settings` are those that were searched; `iou` maps classes to the IoU of the last
    epoch, `curve` epochs to mIoU. `of` is the frontier member of a repeat or control, `run` the fragment of the trial's
    page on a tracking server.
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
        """A cost by the name of its metric; NaN where it is not known."""
        assert name in COSTS
        return float(getattr(self, name))


@dataclass(frozen=True)
class MemberRow:
    """One member of the frontier, with the numbers of its repeats and controls by the names of `Confirmation`."""

    trial: TrialRow
    confirmed: Mapping[str, float]
    gain_of_class: Mapping[str, float]
    reproduce: str
    """The command that trains it again."""
    control: str = ""
    """The trial whose weights show the same student without distillation."""

    def known(self, name: str) -> float | None:
        """A number of the confirmation; None where it is not known."""
        value = self.confirmed.get(name, NAN)
        return None if math.isnan(value) else value


@dataclass(frozen=True)
class Results:
    """A study with all trials. `points` is the frontier, cheapest first; `searched` and `budget` describe the search.

    `hypervolume` has one value per complete trial of the search, in the order of their ends.
    """

    name: str
    space: str
    description: str
    status: str
    objectives: Mapping[str, str]
    trials: Sequence[TrialRow]
    points: Sequence[MemberRow]
    hypervolume: Sequence[float]
    importance: Mapping[str, Mapping[str, float]]
    teacher_miou: float | None
    summary: StudySummary
    searched: Sequence[tuple[str, str]]
    budget: Sequence[tuple[str, str]]
    space_yaml: str
    place: str
    """The folder, or the run on a server, that it was read from."""
    server: str = ""
    """Address of the tracking server; empty where it has no pages."""
    measurements: Sequence[Measurement] = ()
    """Results of `kdsearch evaluate` for students of this run."""

    @property
    def search(self) -> list[TrialRow]:
        return [trial for trial in self.trials if trial.stage == "search"]

    @property
    def main_cost(self) -> str:
        """The cost that the frontier is drawn against."""
        return main_cost(self.objectives)

    @property
    def latency(self) -> LatencyReport | None:
        """The latencies that the study measured before training; None where it measured none."""
        return latency_report(self.summary.latency)

    def knee(self) -> MemberRow | None:
        """The knee of the frontier, the best compromise: the student of `kdsearch export --best knee`."""
        from kdsearch.search.choice import choose

        rows = {point.trial.id: point for point in self.points}
        frontier = [point for point in self.summary.frontier if point.trial in rows]
        return rows[choose(frontier, "knee", cost=self.summary.main_cost)[0].trial] if frontier else None


def read_results(run: RunFolder) -> Results:
    """The results in a run folder. Raises `UserError` where there is no study in it."""
    from kdsearch.config.space.search_space import load_space
    from kdsearch.search.confirm import Confirmation, confirmations
    from kdsearch.search.storage.reader import read_history

    if not (run.space.is_file() and run.journal.is_file()):
        raise UserError(f"There is no study in {run.path}; name a run folder, such as runs/clfd-20260101-120000.")
    space = load_space(run.space)
    summary = StudySummary.read_or_empty(run.summary, space.name)
    history = read_history(run.journal, space.search.objectives)
    server, pages = noted_pages(run)
    rows = {record.id: _row(record, pages.get(record.id, "")) for record in history.trials}
    records = {record.id: record for record in history.trials}
    # The summary holds the frontier: only the driver applies all bounds of the study.
    members = [records[point.trial] for point in summary.frontier if point.trial in records]
    confirmed = confirmations(members, history.trials, space.confirm, space.search.objectives)
    points = [
        MemberRow(
            rows[m.id], confirmed.get(m.id, Confirmation()).numbers(), confirmed[m.id].gain_of_class,
            _reproduce(run, m.id), _control(run, m, history.trials, space),
        )
        for m in members
    ]  # fmt: skip
    return Results(
        name=run.path.name,
        space=space.name,
        description=space.description,
        status=summary.status,
        objectives={str(name): direction for name, direction in space.search.objectives.items()},
        trials=list(rows.values()),
        points=points,
        hypervolume=_hypervolume(history, space, summary.reference),
        importance=history.importance,
        teacher_miou=summary.teacher_miou,
        summary=summary,
        searched=setting_ranges(space),
        budget=search_budget(space),
        space_yaml=space.to_yaml(),
        place=str(run.path),
        server=server,
        measurements=measurements.read(run.path),
    )


def _row(record: TrialRecord, run: str) -> TrialRow:
    return TrialRow(
        id=record.id,
        stage=record.stage,
        state=record.state,
        student=network_name(record.config.student),
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


def _hypervolume(history: StudyHistory, space: SearchSpace, reference: Mapping[str, float] | None) -> list[float]:
    """The hypervolume after each complete trial; empty where the reference corner is not known."""
    from kdsearch.search.constraints import broken
    from kdsearch.search.pareto import costs, hypervolume, non_dominated

    objectives = space.search.objectives
    if reference is None or not set(objectives) - {"miou"} <= set(reference):
        return []
    corner = np.array([0.0 if name == "miou" else float(reference[name]) for name in objectives])
    bounds = space.search.constraints
    complete = [
        r for r in history.trials
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
    config = run.student(trial_id) / "config.json"
    return shlex.join(
        ["kdsearch", "train", str(config), "--storage", str(run.path.parent), "--out", f"{trial_id}-again"]
    )
