"""The record of a study: Optuna studies in one journal file, written by the driver alone.

The study `"search"` holds what the sampler asks; `"confirm"` holds repeats and controls, which nobody samples. Every
trial carries its whole configuration, so the journal alone says what was run and what came of it. A trial that is
RUNNING when the journal is opened belongs to a driver that is gone: it is handed out again, under its own number.
"""

from __future__ import annotations

import fcntl
import json
import os
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from kdsearch.config.ranges import Choice, Int, IntLog, Log, Range, Uniform
from kdsearch.config.space import Sample, SearchSpace, trial_key
from kdsearch.config.trial import TrialConfig
from kdsearch.errors import UserError

Stage = Literal["teacher", "search", "confirm", "control"]
Outcome = Literal["COMPLETE", "PRUNED", "FAIL", "INFEASIBLE"]
State = Literal["RUNNING"] | Outcome

MAX_REDRAWS = 200
"""Draws in a row that give nothing new to train before the space counts as exhausted."""


@dataclass
class Record:
    """One trial as the journal has it. `metrics` are those of the last epoch it reported."""

    id: str
    stage: Stage
    state: State
    config: TrialConfig
    params: dict[str, Any]
    cost: dict[str, float]
    epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""

    @property
    def miou(self) -> float:
        return self.metrics.get("val/miou", float("nan"))

    def values(self) -> dict[str, float]:
        """Everything an objective can name."""
        return {"miou": self.miou, **self.cost}


class StudyRecord:
    """Ask and tell over the journal at `path`; without one everything stays in memory.

    `cost_of` gives static metrics of a configuration (`gflops`, `params_m`) or raises `UserError` where the student
    cannot be built at that size. Raises `UserError` when another process has the journal open.
    """

    def __init__(
        self, path: Path | None, space: SearchSpace, cost_of: Callable[[TrialConfig], Mapping[str, float]]
    ) -> None:
        self.space = space
        self._cost_of = cost_of
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._lock: int | None = None
        storage: BaseStorage = InMemoryStorage()
        if path is not None:
            self._lock = _lock(path)
            _drop_torn_line(path)
            storage = JournalStorage(JournalFileBackend(str(path)))
        self._objectives = space.search.objectives
        directions: list[Literal["maximize", "minimize"]] = [
            "maximize" if direction == "max" else "minimize" for direction in self._objectives.values()
        ]
        self._studies = {
            "search": optuna.create_study(
                storage=storage, study_name="search", directions=directions, load_if_exists=True
            ),
            "confirm": optuna.create_study(storage=storage, study_name="confirm", load_if_exists=True),
        }  # fmt: skip
        # A resumed study must not draw the random numbers of its first driver again.
        drawn = len(self._studies["search"].get_trials(deepcopy=False))
        self._studies["search"].sampler = _sampler(space.search.sampler, space.search.seed + drawn)
        self._records: dict[str, Record] = {}
        self._by_key: dict[str, str] = {}
        for name, study in self._studies.items():
            for frozen in study.get_trials(deepcopy=False):
                self._recall(name, frozen)

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)

    # ---- what is known -------------------------------------------------------------------------------------------

    def all(self) -> list[Record]:
        """Every trial, in the order it was asked; the search first."""
        return list(self._records.values())

    def get(self, trial_id: str) -> Record:
        return self._records[trial_id]

    def running(self) -> Iterator[Record]:
        return (r for r in self._records.values() if r.state == "RUNNING")

    def searched(self) -> int:
        """Trials of the search that took, or take, a slot: infeasible ones and copies are not among them."""
        return sum(r.stage == "search" and r.state != "INFEASIBLE" for r in self._records.values())

    def complete(self, stage: Stage) -> list[Record]:
        return [r for r in self._records.values() if r.stage == stage and r.state == "COMPLETE"]

    # ---- ask -----------------------------------------------------------------------------------------------------

    def ask(self) -> Record | None:
        """The next trial to train, or None when the space holds nothing new.

        The published point comes first. Configurations that cannot run or break a constraint, and those equal to one
        on record, are told to the sampler at once and replaced.
        """
        study = self._studies["search"]
        if not self._records:
            study.enqueue_trial(dict(self.space.default().params))
        for _ in range(MAX_REDRAWS):
            trial = study.ask()
            sample = self.space.sample(partial(_suggest, trial))
            record = self._judge(trial, sample)
            if record is not None:
                return record
        return None

    def _judge(self, trial: optuna.Trial, sample: Sample) -> Record | None:
        study = self._studies["search"]
        key = trial_key(sample.trial)
        if key in self._by_key:
            self._tell_copy(trial, self._records[self._by_key[key]])
            return None
        cost: dict[str, float] = {}
        reason = ""
        try:
            cost = dict(self._cost_of(sample.trial))
        except UserError as error:
            reason = str(error)
            trial.set_constraint("runs", 1.0)
        for name, constraint in self.space.search.constraints.items():
            if name in cost:
                trial.set_constraint(name, constraint.violation(cost[name]))
                if constraint.violation(cost[name]) > 0:
                    reason = f"{name} {cost[name]:.3g} is not {constraint}"
        record = Record(
            id=f"t{trial.number:04d}", stage="search", state="RUNNING", config=sample.trial, params=dict(sample.params),
            cost=cost,
        )  # fmt: skip
        self._write(trial, record)
        self._records[record.id], self._by_key[key] = record, record.id
        if reason:
            self._finish(record, "INFEASIBLE", reason)
            self._tell_sampler(study, trial.number, record)
            return None
        return record

    def _tell_copy(self, trial: optuna.Trial, original: Record) -> None:
        """Tell the sampler what is known of an equal configuration, without a record of its own."""
        study = self._studies["search"]
        trial.set_user_attr("copy_of", original.id)
        if original.state == "COMPLETE":
            study.tell(trial.number, self._values(original))
        else:
            # A PRUNED copy of a running or failed trial steers the sampler away from asking for it again.
            study.tell(trial.number, state=TrialState.PRUNED)

    def add(self, stage: Literal["confirm", "control"], config: TrialConfig, params: dict[str, Any]) -> Record:
        """Put a trial that was not sampled on record: a repeat of a frontier member, or its control."""
        trial = self._studies["confirm"].ask()
        record = Record(
            id=f"{stage[:4]}{trial.number:04d}", stage=stage, state="RUNNING", config=config, params=params,
            cost=dict(self._cost_of(config)),
        )  # fmt: skip
        self._write(trial, record)
        self._records[record.id] = record
        return record

    # ---- tell ----------------------------------------------------------------------------------------------------

    def tell(self, record: Record, state: Outcome, reason: str = "") -> None:
        """End a trial. `record.epoch` and `record.metrics` hold what it reached; PRUNED keeps them as its fidelity.

        INFEASIBLE here is a configuration that turned out not to fit into device memory.
        """
        study, number = self._study_of(record.id)
        if state == "INFEASIBLE":
            optuna.Trial(study, self._frozen(study, number)._trial_id).set_constraint("memory", 1.0)
        self._finish(record, state, reason)
        self._tell_sampler(study, number, record)

    def _tell_sampler(self, study: optuna.Study, number: int, record: Record) -> None:
        if record.state == "COMPLETE":
            study.tell(number, self._values(record) if study is self._studies["search"] else [record.miou])
        else:
            # Optuna knows infeasible trials by their constraints; PRUNED lets them have none of the objectives.
            study.tell(number, state=TrialState.FAIL if record.state == "FAIL" else TrialState.PRUNED)

    def _values(self, record: Record) -> list[float]:
        known = record.values()
        return [known[name] for name in self._objectives]

    def _finish(self, record: Record, state: State, reason: str) -> None:
        record.state, record.reason = state, reason
        study, number = self._study_of(record.id)
        outcome = {
            "state": state, "reason": reason, "epoch": record.epoch, "metrics": record.metrics,
            "seconds": record.seconds,
        }  # fmt: skip
        study._storage.set_trial_user_attr(self._frozen(study, number)._trial_id, "outcome", json.dumps(outcome))

    # ---- journal -------------------------------------------------------------------------------------------------

    def _study_of(self, record_id: str) -> tuple[optuna.Study, int]:
        name = "search" if record_id.startswith("t") else "confirm"
        return self._studies[name], int(record_id.lstrip(string.ascii_letters))

    @staticmethod
    def _frozen(study: optuna.Study, number: int) -> FrozenTrial:
        return study.get_trials(deepcopy=False)[number]

    @staticmethod
    def _write(trial: optuna.Trial, record: Record) -> None:
        trial.set_user_attr("stage", record.stage)
        trial.set_user_attr("cost", json.dumps(record.cost))
        trial.set_user_attr("params", json.dumps(record.params))
        trial.set_user_attr("config", record.config.model_dump_json())

    def _recall(self, study_name: str, frozen: FrozenTrial) -> None:
        attrs = frozen.user_attrs
        if "config" not in attrs:
            # The driver died between asking and writing the configuration down; nothing was trained.
            if frozen.state == TrialState.RUNNING:
                self._studies[study_name].tell(frozen.number, state=TrialState.FAIL)
            return
        prefix = "t" if study_name == "search" else attrs["stage"][:4]
        outcome = json.loads(attrs.get("outcome", "{}"))
        record = Record(
            id=f"{prefix}{frozen.number:04d}", stage=attrs["stage"], state=outcome.get("state", "RUNNING"),
            config=TrialConfig.model_validate_json(attrs["config"]), params=json.loads(attrs["params"]),
            cost=json.loads(attrs["cost"]), epoch=outcome.get("epoch", 0), metrics=outcome.get("metrics", {}),
            seconds=outcome.get("seconds", 0.0), reason=outcome.get("reason", ""),
        )  # fmt: skip
        self._records[record.id] = record
        if record.stage == "search":
            self._by_key[trial_key(record.config)] = record.id
        if frozen.state == TrialState.RUNNING and record.state != "RUNNING":
            # The driver died between writing the outcome down and telling the sampler.
            self._tell_sampler(self._studies[study_name], frozen.number, record)


def _suggest(trial: optuna.Trial, name: str, domain: Range) -> Any:
    match domain:
        case Choice():
            return trial.suggest_categorical(name, domain.categories)
        case Int() | IntLog():
            return trial.suggest_int(name, domain.low, domain.high, log=isinstance(domain, IntLog))
        case Uniform() | Log():
            return trial.suggest_float(name, domain.low, domain.high, log=isinstance(domain, Log))


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    match name:
        case "tpe":
            # `constant_liar` keeps parallel slots from asking for neighbours of what is running.
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        case "gp":
            return optuna.samplers.GPSampler(seed=seed)
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
        case "qmc":
            return optuna.samplers.QMCSampler(seed=seed)
    raise ValueError(f"no sampler is named {name!r}")


def _lock(journal: Path) -> int:
    """Hold the journal for this process; the operating system lets go of it when the process ends, however it ends."""
    handle = os.open(journal.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UserError(
            f"Another process is running the study in {journal.parent}; wait for it, or give another --name."
        ) from error
    # Optuna's own lock is a symlink that outlives a killed process; whoever holds ours is alone, so it is stale.
    Path(f"{journal}.lock").unlink(missing_ok=True)
    return handle


def _drop_torn_line(journal: Path) -> None:
    """Cut an unfinished last line, left by a process that was killed while writing it."""
    if not journal.exists():
        return
    with journal.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
