"""The record of a study: Optuna studies in one journal file, written by the driver alone.

The studies `search`, `search-2`, ... hold what the sampler asks, one for each form that the space has had (see
`generations`); `confirm` holds repeats and controls, which nobody samples. Every trial carries its id and its whole
configuration, so the journal alone says what was run and what came of it. A trial that is RUNNING when the journal is
opened belongs to a driver that is gone: it is handed out again, under its own id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from kdsearch.config.space.search_space import Sample, SearchSpace, space_from_text, trial_key
from kdsearch.config.trial import TrialConfig
from kdsearch.errors import UserError
from kdsearch.search import constraints
from kdsearch.search.evolution.space_mapping import SpaceMapping, differences, fit
from kdsearch.search.evolution.space_versions import SPACE_ATTR, Extension, check_comparable, same_space, study_name
from kdsearch.search.pareto import costs, non_dominated
from kdsearch.search.sampling.adapter import SamplerAdapter
from kdsearch.search.sampling.samplers import SearchStudy, make_sampler, suggest
from kdsearch.search.storage.journal import Journal
from kdsearch.search.trial_record import Outcome, Stage, State, TrialRecord, attributes, trial_record_of

__all__ = ["Outcome", "Stage", "State", "StudyStorage", "TrialRecord"]

MAX_REDRAWS = 200
"""Draws in a row that give nothing new to train before the space counts as exhausted."""
SAMPLER_DRAWS = 30
"""Draws in a row by the sampler; the rest are random, since a model that is sure of its optimum asks for it again."""


class StudyStorage:
    """Ask and tell over the journal at `path`; without one everything stays in memory.

    `cost_of` gives static metrics of a configuration (`gflops`, `params_m`, ...) or raises `UserError` where the
    student cannot run. Raises `UserError` when another process has the journal open, when it is damaged, and when
    `space` is not the one the journal was begun with and their results would not compare. Otherwise a changed space
    starts a new generation, and `extension` says what it took over. `cut` is the number of bytes of an unfinished entry
    that were cut off the journal's end.
    """

    def __init__(
        self, path: Path | None, space: SearchSpace, cost_of: Callable[[TrialConfig], Mapping[str, float]]
    ) -> None:
        self.space = space
        self.extension: Extension | None = None
        self.old_spaces: list[str] = []
        self._cost_of = cost_of
        self._bounds = space.search.constraints
        self._records: dict[str, TrialRecord] = {}
        self._by_key: dict[str, str] = {}
        self._running: dict[str, tuple[optuna.Study, int]] = {}
        self._members: list[TrialRecord] = []
        self._unfit: set[str] = set()
        self._searched = 0
        self._drawn = 0
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._journal = Journal(path)
        self.cut = self._journal.cut
        try:
            self._search = self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._journal.close()

    # ---- what is known -------------------------------------------------------------------------------------------

    def all(self) -> list[TrialRecord]:
        """Every trial, in the order it was asked; the search first."""
        return list(self._records.values())

    def get(self, trial_id: str) -> TrialRecord:
        return self._records[trial_id]

    def cost(self, config: TrialConfig) -> dict[str, float]:
        """What is known of its cost before training. Raises `UserError` where it cannot run."""
        return dict(self._cost_of(config))

    def knows(self, config: TrialConfig) -> bool:
        """Whether an equal configuration of the search is on record."""
        return trial_key(config) in self._by_key

    def running(self) -> Iterator[TrialRecord]:
        return (self._records[trial_id] for trial_id in list(self._running))

    def searched(self) -> int:
        """Trials of the search that took, or take, a slot: infeasible ones, copies and imports are not among them."""
        return self._searched

    def complete(self, stage: Stage) -> list[TrialRecord]:
        return [r for r in self._records.values() if r.stage == stage and r.state == "COMPLETE"]

    def frontier(self) -> list[TrialRecord]:
        """Complete trials of the search that keep all constraints and that no other dominates, in order of ids."""
        return self._members

    # ---- ask -----------------------------------------------------------------------------------------------------

    def ask(self) -> TrialRecord | None:
        """The next trial to train, or None when the space holds nothing new.

        The published point comes first, then what was enqueued. Configurations that cannot run or break a constraint,
        and those equal to one on record, are told to the sampler at once and replaced.
        """
        sampler = self._search.sampler
        try:
            for draw in range(MAX_REDRAWS):
                if draw == SAMPLER_DRAWS:
                    self._search.sampler = self._random
                trial = self._search.ask()
                sample = self.space.sample(partial(suggest, trial))
                record = self._judge(trial, sample)
                if record is not None:
                    return record
            return None
        finally:
            self._search.sampler = sampler

    def _judge(self, trial: optuna.Trial, sample: Sample) -> TrialRecord | None:
        key = trial_key(sample.trial)
        if key in self._by_key:
            self._tell_copy(trial, self._records[self._by_key[key]])
            return None
        cost: dict[str, float] = {}
        reason = ""
        bounds = constraints.static(self._bounds)
        try:
            cost = self.cost(sample.trial)
            reason = constraints.broken(bounds, cost)
        except UserError as error:
            reason = str(error)
            trial.set_constraint("runs", 1.0)
        for name, violation in constraints.violations(bounds, cost).items():
            trial.set_constraint(name, violation)
        record = TrialRecord(
            id=self.next_id(), stage="search", state="RUNNING", config=sample.trial, params=dict(sample.params),
            cost=cost,
        )  # fmt: skip
        self._write(trial, record)
        if reason:
            self._end(trial, record, "INFEASIBLE", reason)
            if not cost:
                self._unfit.add(record.id)
        self._keep(record, self._search, trial._trial_id)
        return None if reason else record

    def _tell_copy(self, trial: optuna.Trial, original: TrialRecord) -> None:
        """Tell the sampler what is known of an equal configuration, without a record of its own."""
        trial.set_user_attr("copy_of", original.id)
        if original.state == "COMPLETE":
            self._told.complete(trial, original)
        else:
            # A PRUNED copy of a running or failed trial steers the sampler away from asking for it again.
            self._search.tell(trial, state=TrialState.PRUNED)

    def enqueue(self, sample: Sample) -> None:
        """Ask for this sample of the space before the sampler draws again."""
        self._search.enqueue_trial(dict(sample.params))

    def add(self, stage: Literal["confirm", "control"], config: TrialConfig, params: dict[str, Any]) -> TrialRecord:
        """Put a trial that was not sampled on record: a repeat of a frontier member, or its control."""
        trial = self._confirm.ask()
        record = TrialRecord(
            id=f"{stage[:4]}{trial.number:04d}", stage=stage, state="RUNNING", config=config, params=params,
            cost=self.cost(config),
        )  # fmt: skip
        self._write(trial, record)
        self._keep(record, self._confirm, trial._trial_id)
        return record

    # ---- tell ----------------------------------------------------------------------------------------------------

    def tell(self, record: TrialRecord, state: Outcome, reason: str = "") -> None:
        """End a trial. `record.epoch` and `record.metrics` hold what it reached; PRUNED keeps them as its fidelity.

        INFEASIBLE here is a configuration that turned out not to fit into device memory.
        """
        study, trial_id = self._running.pop(record.id)
        trial = optuna.Trial(study, trial_id)
        if state == "INFEASIBLE":
            trial.set_constraint("memory", 1.0)
            self._unfit.add(record.id)
            self._searched -= record.stage == "search"
        self._end(trial, record, state, reason)
        self._admit(record)
        if record.stage == "search" and study is not self._search:
            self._import(record)

    def _end(self, trial: optuna.Trial, record: TrialRecord, state: Outcome, reason: str) -> None:
        record.state, record.reason = state, reason
        outcome = {
            "state": state, "reason": reason, "epoch": record.epoch, "metrics": record.metrics,
            "seconds": record.seconds, "curve": record.curve,
        }  # fmt: skip
        trial.set_user_attr("outcome", outcome)
        self._tell_sampler(trial, record)

    def _tell_sampler(self, trial: optuna.Trial, record: TrialRecord) -> None:
        if record.state == "COMPLETE" and trial.study is self._search:
            self._told.complete(trial, record)
        elif record.state == "COMPLETE" and trial.study is self._confirm:
            self._confirm.tell(trial, record.miou)
        else:
            # Optuna knows infeasible trials by their constraints; PRUNED lets them have none of the objectives. So does
            # a trial of an earlier generation, which nobody samples again and which may have had others.
            trial.study.tell(trial, state=TrialState.FAIL if record.state == "FAIL" else TrialState.PRUNED)

    # ---- records -------------------------------------------------------------------------------------------------

    def next_id(self) -> str:
        """The id of the next trial of the search."""
        return f"t{self._drawn:04d}"

    def _keep(self, record: TrialRecord, study: optuna.Study, trial_id: int) -> None:
        """Put a record on the list, in memory."""
        self._records[record.id] = record
        if record.state == "RUNNING":
            self._running[record.id] = study, trial_id
        if record.stage == "search":
            self._drawn = max(self._drawn, int(record.id[1:]) + 1)
            self._searched += record.state != "INFEASIBLE" and not record.origin
            # What only an earlier, tighter constraint kept from being trained may be asked for again.
            if record.state != "INFEASIBLE" or record.id in self._unfit or self._breaks_static(record):
                self._by_key[trial_key(record.config)] = record.id
        self._admit(record)

    def _breaks_static(self, record: TrialRecord) -> bool:
        return bool(constraints.broken(constraints.static(self._bounds), record.cost))

    def _admit(self, record: TrialRecord) -> None:
        """Let a complete trial onto the frontier if it belongs there."""
        if record.stage != "search" or record.state != "COMPLETE":
            return
        record.broken = record.reason = constraints.broken(self._bounds, record.known())
        if record.feasible:
            # In order of their ids, of equal points the first asked is kept, whichever ended first.
            candidates = sorted([*self._members, record], key=lambda r: int(r.id[1:]))
            mask = non_dominated(costs([r.values() for r in candidates], self.space.search.objectives))
            self._members = [r for r, kept in zip(candidates, mask, strict=True) if kept]

    @staticmethod
    def _write(trial: optuna.Trial, record: TrialRecord) -> None:
        trial.set_user_attr("trial", attributes(record))

    # ---- the journal ---------------------------------------------------------------------------------------------

    def _open(self) -> SearchStudy:
        """Recall everything, and open the search study of the present space."""
        storage = self._journal.storage
        names = [study.study_name for study in storage.get_all_studies()]
        earlier = [optuna.load_study(study_name=name, storage=storage) for name in names if name.startswith("search")]
        if earlier and SPACE_ATTR not in earlier[-1].user_attrs:
            # The driver died while it began this generation; nothing was asked of it yet.
            if any("config" in trial.user_attrs for trial in earlier[-1].get_trials(deepcopy=False)):
                raise UserError(
                    "This study was begun by an earlier version of kdsearch, whose journals cannot be gone on with; "
                    "start a new one with --name."
                )
            optuna.delete_study(study_name=earlier.pop().study_name, storage=storage)
        texts = [study.user_attrs[SPACE_ATTR] for study in earlier]
        begins = not texts
        if texts:
            last = space_from_text(texts[-1], "the study's journal")
            if not same_space(last, self.space):
                check_comparable(last, self.space)
                begins = True
        self.old_spaces = texts if begins else texts[:-1]
        name = study_name(len(self.old_spaces) + 1)
        if begins:
            directions: list[Literal["maximize", "minimize"]] = [
                "maximize" if direction == "max" else "minimize" for direction in self.space.search.objectives.values()
            ]
            optuna.create_study(storage=storage, study_name=name, directions=directions)
        self._confirm = optuna.create_study(storage=storage, study_name="confirm", load_if_exists=True)
        drawn = sum(len(study.get_trials(deepcopy=False)) for study in earlier)
        sampler = self.space.search.sampler
        # A resumed study must not draw the random numbers of its first driver again.
        seed = self.space.search.seed + drawn
        self._random = optuna.samplers.RandomSampler(seed=seed)
        search = SearchStudy(name, storage, make_sampler(sampler, seed), getattr(sampler, "history", None))
        self._search, self._told = search, SamplerAdapter(search, self.space)
        for study in [*earlier[: len(self.old_spaces)], *([] if begins else [search]), self._confirm]:
            for frozen in study.get_trials(deepcopy=False):
                self._recall(study, frozen)
        imported = {trial.user_attrs.get("imported") for trial in search.get_trials(deepcopy=False)}
        if self.old_spaces:
            extension = self._import_others(imported)
            self.extension = extension if begins else None
        if begins:
            search.enqueue_trial(dict(self.space.default().params))
            # Last, so that a generation without it is known to be unfinished.
            search.set_user_attr(SPACE_ATTR, self.space.to_yaml())
        return search

    def _import_others(self, imported: set[str | None]) -> Extension:
        """Tell the sampler of all finished trials of earlier generations that it has not been told of."""
        extension = Extension(len(self.old_spaces) + 1)
        drawn_here = {r.user_attrs["trial"]["id"] for r in self._search.get_trials() if "trial" in r.user_attrs}
        for record in [r for r in self._records.values() if r.stage == "search"]:
            if record.id in imported or record.id in drawn_here:
                continue
            if record.state == "RUNNING":
                extension.running.append(record.id)
            elif why := self._import(record):
                extension.left[record.id] = why
            else:
                extension.imported += 1
        return extension

    def _import(self, record: TrialRecord) -> str:
        """Tell the present sampler of a trial that it did not ask for; or why that cannot be."""
        fitted = fit(self.space, record.config, record.params)
        if not fitted.exact:
            return "; ".join(differences(fitted, record.config)[:3])
        if record.state == "FAIL":
            return f"it failed: {record.reason}"
        if record.state == "INFEASIBLE" and record.id not in self._unfit and not self._breaks_static(record):
            return "no constraint is against it any more: it may be asked for again"
        self.inform(fitted, record)
        return ""

    def inform(self, fitted: SpaceMapping, record: TrialRecord) -> None:
        """Tell the sampler of a finished trial that it did not ask for, without a record here."""
        self._told.add(fitted, record, {"imported": record.id}, record.id in self._unfit)

    def adopt(self, fitted: SpaceMapping, earlier: TrialRecord, origin: str) -> TrialRecord:
        """Put a complete trial of an earlier study, equal in everything, on record as one that costs nothing."""
        record = TrialRecord(
            id=self.next_id(), stage="search", state="COMPLETE", config=earlier.config,
            params=dict(fitted.sample.params), cost=self.cost(earlier.config), epoch=earlier.epoch,
            metrics=earlier.metrics, seconds=earlier.seconds, origin=origin,
        )  # fmt: skip
        outcome = {"state": "COMPLETE", "epoch": record.epoch, "metrics": record.metrics, "seconds": record.seconds}
        self._told.add(fitted, record, {"trial": attributes(record), "outcome": outcome})
        self._keep(record, self._search, -1)
        return record

    def _recall(self, study: optuna.Study, frozen: FrozenTrial) -> None:
        record = trial_record_of(frozen)
        if record is None:
            # The driver died between asking and writing the configuration down; nothing was trained.
            if frozen.state == TrialState.RUNNING:
                study.tell(frozen.number, state=TrialState.FAIL)
            return
        if any(frozen.constraints.get(name, 0.0) > 0 for name in ("memory", "runs")):
            self._unfit.add(record.id)
        self._keep(record, study, frozen._trial_id)
        if frozen.state == TrialState.RUNNING and record.state != "RUNNING":
            # The driver died between writing the outcome down and telling the sampler.
            self._tell_sampler(optuna.Trial(study, frozen._trial_id), record)
