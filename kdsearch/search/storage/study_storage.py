"""The storage of a study: ask and tell over one journal file, which the driver alone writes.

Every trial carries its id and its whole configuration, so the journal alone shows which trials ran and how they ended.
A trial that is RUNNING when the journal is opened belongs to a driver that is gone: the controller hands it out again
under its own id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from kdsearch.config.space.search_space import Sample, SearchSpace
from kdsearch.config.trial import TrialConfig
from kdsearch.errors import UserError
from kdsearch.search import constraints
from kdsearch.search.evolution.space_mapping import SpaceMapping, map_trial
from kdsearch.search.evolution.space_versions import SpaceExtension
from kdsearch.search.sampling.adapter import SamplerAdapter
from kdsearch.search.sampling.distributions import suggest
from kdsearch.search.storage.journal import Journal
from kdsearch.search.storage.optuna_studies import OptunaStudies, open_studies
from kdsearch.search.storage.trial_importer import TrialImporter
from kdsearch.search.storage.trial_index import TrialIndex
from kdsearch.search.trial_record import Outcome, Stage, TrialRecord, attributes, trial_record_of

CostOf = Callable[[TrialConfig], Mapping[str, float]]
"""Costs of a configuration by metric name; raises `UserError` if its student cannot run."""

MAX_REDRAWS = 200
"""Draws in a row without a new trial after which the space counts as exhausted."""
SAMPLER_DRAWS = 30
"""Of these, draws by the sampler. The others are random: a model that is sure of its optimum keeps drawing it."""


class StudyStorage:
    """All trials of a study, its sampler, and the journal that keeps them; opened with `open`.

    `extension` describes what a changed space imported, if the space has changed with this opening; `old_spaces` are
    the texts of its earlier versions. `cut` is the number of bytes that a crash left at the end of the journal and
    that were removed.
    """

    def __init__(self, journal: Journal, studies: OptunaStudies, space: SearchSpace, cost_of: CostOf) -> None:
        self.space = space
        self.extension: SpaceExtension | None = None
        self.old_spaces = studies.old_spaces
        self.cut = journal.cut
        self._journal, self._studies = journal, studies
        self._search, self._confirm = studies.search, studies.confirm
        self._cost_of = cost_of
        self._bounds = space.search.constraints
        self._index = TrialIndex(space.search)
        self._running: dict[str, optuna.Trial] = {}
        self._failed: dict[str, tuple[optuna.Study, FrozenTrial]] = {}
        """Trials that failed under an earlier driver."""
        self._adapter = SamplerAdapter(studies.search, space)
        self._importer = TrialImporter(studies.search, space, self._index, self._adapter)

    @classmethod
    def open(cls, path: Path | None, space: SearchSpace, cost_of: CostOf) -> StudyStorage:
        """Open or create the journal at `path`; in memory without a path.

        A space that differs from that of the journal starts a new version, into which earlier trials are imported.
        Raises `UserError` if another process has the journal open, if it is damaged, and if results under `space` could
        not be compared with those in it.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal = Journal.open(path)
        try:
            studies = open_studies(journal.storage, space)
            storage = cls(journal, studies, space, cost_of)
            storage._restore_all()
            if studies.old_spaces:
                extension = storage._importer.import_earlier(len(studies.old_spaces) + 1)
                storage.extension = extension if studies.is_new else None
            if studies.is_new:
                studies.begin(space)
        except BaseException:
            journal.close()
            raise
        return storage

    def close(self) -> None:
        """Release the journal; may be called twice."""
        self._journal.close()

    # ---- trials --------------------------------------------------------------------------------------------------

    @property
    def trials(self) -> list[TrialRecord]:
        """Every trial, in the order in which it was asked; after opening, the search first."""
        return self._index.trials

    def get(self, trial_id: str) -> TrialRecord:
        return self._index[trial_id]

    def running(self) -> Iterator[TrialRecord]:
        """Trials that have not ended, also those of an earlier driver."""
        return (self._index[trial_id] for trial_id in list(self._running))

    def complete(self, stage: Stage) -> list[TrialRecord]:
        return [r for r in self.trials if r.stage == stage and r.state == "COMPLETE"]

    def searched(self) -> int:
        """Trials of the search that took, or take, a slot: infeasible, duplicate and imported ones do not."""
        return self._index.searched

    def frontier(self) -> list[TrialRecord]:
        """Complete trials of the search that keep all constraints and that no other dominates, in order of ids."""
        return self._index.frontier

    def knows(self, config: TrialConfig) -> bool:
        """Whether the search has a trial with an equal configuration."""
        return self._index.find(config) is not None

    def next_id(self) -> str:
        """The id of the next trial of the search."""
        return self._index.next_id()

    def cost(self, config: TrialConfig) -> dict[str, float]:
        """Its costs before training. Raises `UserError` if the student cannot run."""
        return dict(self._cost_of(config))

    # ---- ask -----------------------------------------------------------------------------------------------------

    def ask(self) -> TrialRecord | None:
        """The next trial to train, or None if the space holds no new one.

        The defaults come first, then enqueued samples, then draws. A draw that cannot run, breaks a constraint or
        equals an earlier one is reported to the sampler at once and replaced.
        """
        sampler = self._search.sampler
        try:
            for draw in range(MAX_REDRAWS):
                if draw == SAMPLER_DRAWS:
                    self._search.sampler = self._studies.random
                trial = self._search.ask()
                sample = self.space.sample(partial(suggest, trial))
                original = self._index.find(sample.trial)
                if original is not None:
                    self._tell_duplicate(trial, original)
                    continue
                record = self._add_draw(trial, sample)
                if record.state == "RUNNING":
                    return record
            return None
        finally:
            self._search.sampler = sampler

    def _add_draw(self, trial: optuna.Trial, sample: Sample) -> TrialRecord:
        """Add a draw of the sampler; it is INFEASIBLE if it cannot run or breaks a constraint."""
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
        trial.set_user_attr("trial", attributes(record))
        if reason:
            self._end(trial, record, "INFEASIBLE", reason)
        else:
            self._running[record.id] = trial
        self._index.add(record, unrunnable=bool(reason) and not cost)
        return record

    def _tell_duplicate(self, trial: optuna.Trial, original: TrialRecord) -> None:
        """Tell the sampler the result of an earlier trial with an equal configuration; no record is added."""
        trial.set_user_attr("copy_of", original.id)
        if original.state == "COMPLETE":
            self._adapter.tell_complete(trial, original)
        else:
            # A PRUNED duplicate of a running or failed trial steers the sampler away from it.
            self._search.tell(trial, state=TrialState.PRUNED)

    def ask_again(self) -> list[TrialRecord]:
        """Make the trials that failed under an earlier driver run again, from their start and under their own ids.

        What failed them may be mended: a machine, a mount, a plug-in. Those of an earlier version of the space run
        again where the present one still holds them. The sampler's trial cannot run again, so it gets another one.
        """
        again = []
        for name, (study, frozen) in self._failed.items():
            record = self._index[name]
            earlier = study in self._studies.earlier
            if earlier and not map_trial(self.space, record.config, record.params).exact:
                continue
            running = create_trial(
                state=TrialState.RUNNING, params=frozen.params, distributions=frozen.distributions,
                constraints=frozen.constraints, user_attrs={"trial": attributes(record)},
            )  # fmt: skip
            study.add_trial(running)
            self._running[name] = self._trial(study, study.get_trials(deepcopy=False)[-1].number)
            record.state, record.reason, record.epoch, record.seconds = "RUNNING", "", 0, 0.0
            record.metrics, record.curve, record.broken = {}, {}, ""
            again.append(record)
        self._failed.clear()
        return again

    def enqueue(self, sample: Sample) -> None:
        """Ask for this sample of the space before the sampler draws again."""
        self._search.enqueue_trial(dict(sample.params))

    def add(self, stage: Literal["confirm", "control"], config: TrialConfig, params: dict[str, Any]) -> TrialRecord:
        """Add a running trial that is not sampled: a repeat of a frontier member, or its control."""
        trial = self._confirm.ask()
        record = TrialRecord(
            id=f"{stage[:4]}{trial.number:04d}", stage=stage, state="RUNNING", config=config, params=params,
            cost=self.cost(config),
        )  # fmt: skip
        trial.set_user_attr("trial", attributes(record))
        self._running[record.id] = trial
        self._index.add(record)
        return record

    # ---- tell ----------------------------------------------------------------------------------------------------

    def tell(self, record: TrialRecord, state: Outcome, reason: str = "") -> None:
        """End a trial; `record.epoch` and `record.metrics` hold its last report, also if it is PRUNED.

        INFEASIBLE means here that the configuration did not fit in device memory.
        """
        trial = self._running.pop(record.id)
        if state == "INFEASIBLE":
            trial.set_constraint("memory", 1.0)
        self._end(trial, record, state, reason)
        self._index.on_trial_end(record)
        if record.stage == "search" and trial.study is not self._search:
            self._importer.import_finished(record)

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
            self._adapter.tell_complete(trial, record)
        elif record.state == "COMPLETE" and trial.study is self._confirm:
            self._confirm.tell(trial, record.miou)
        else:
            # PRUNED needs no values. Optuna recognises infeasible trials by their constraints; trials of an earlier
            # version of the space, whose objectives may differ, are not sampled from again.
            trial.study.tell(trial, state=TrialState.FAIL if record.state == "FAIL" else TrialState.PRUNED)

    # ---- trials of other studies ---------------------------------------------------------------------------------

    def inform_sampler(self, mapping: SpaceMapping, record: TrialRecord) -> None:
        """Report a finished trial of another study to the sampler alone; no record is added."""
        self._importer.inform_sampler(mapping, record)

    def import_trial(self, mapping: SpaceMapping, earlier: TrialRecord, origin: str) -> TrialRecord:
        """Add a complete trial of an earlier study, equal in everything, as one that takes no slot."""
        record = TrialRecord(
            id=self.next_id(), stage="search", state="COMPLETE", config=earlier.config,
            params=dict(mapping.sample.params), cost=self.cost(earlier.config), epoch=earlier.epoch,
            metrics=earlier.metrics, seconds=earlier.seconds, origin=origin,
        )  # fmt: skip
        outcome = {"state": "COMPLETE", "epoch": record.epoch, "metrics": record.metrics, "seconds": record.seconds}
        self._adapter.add(mapping, record, {"trial": attributes(record), "outcome": outcome})
        self._index.add(record)
        return record

    # ---- opening -------------------------------------------------------------------------------------------------

    def _restore_all(self) -> None:
        """Read every trial of the journal: the search first, its versions in order."""
        present = [] if self._studies.is_new else [self._search]
        for study in [*self._studies.earlier, *present, self._confirm]:
            for frozen in study.get_trials(deepcopy=False):
                self._restore(study, frozen)

    def _restore(self, study: optuna.Study, frozen: FrozenTrial) -> None:
        record = trial_record_of(frozen)
        if record is None:
            # The driver died after the draw and before it wrote the configuration; nothing was trained.
            if frozen.state == TrialState.RUNNING:
                study.tell(frozen.number, state=TrialState.FAIL)
            return
        unrunnable = any(frozen.constraints.get(name, 0.0) > 0 for name in ("memory", "runs"))
        self._index.add(record, unrunnable)
        self._failed.pop(record.id, None)
        if record.state == "FAIL":
            self._failed[record.id] = study, frozen
        if record.state == "RUNNING":
            self._running[record.id] = self._trial(study, frozen.number)
        elif frozen.state == TrialState.RUNNING:
            # The driver died after it wrote the outcome and before it told the sampler.
            self._tell_sampler(self._trial(study, frozen.number), record)

    def _trial(self, study: optuna.Study, number: int) -> optuna.Trial:
        """A trial that an earlier driver asked for, as `study.ask` returned it."""
        storage = self._journal.storage
        study_id = storage.get_study_id_from_name(study.study_name)
        return optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))
