"""Reads a study's journal, also while its driver writes it. Nothing is locked and nothing is changed."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from kdsearch.errors import UserError
from kdsearch.search.trial_record import TrialRecord, trial_record_of

ENOUGH_TRIALS = 20
"""Complete trials below which the importance of settings is not estimated."""
TOP_TRIALS = 5
"""Minimum number of trials that count as the best ones when importance is estimated."""


@dataclass(frozen=True)
class StudyHistory:
    """Every trial in the order in which it was asked, the search first, and the end time of each finished one.

    `importance` holds, per objective and for `frontier` (all of them together), the share of each setting in the
    difference between the best trials and the others; empty while fewer than `ENOUGH_TRIALS` are complete.
    """

    trials: list[TrialRecord]
    ended: Mapping[str, datetime]
    importance: Mapping[str, Mapping[str, float]]


def read_history(journal: Path, objectives: Mapping[Any, str]) -> StudyHistory:
    """Read the journal up to its last complete line. Raises `UserError` if it is not one of this version."""
    try:
        studies = _studies(journal)
        found = [(frozen, trial_record_of(frozen)) for study in studies for frozen in study.get_trials(deepcopy=False)]
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(journal, error) from error
    # By id, in the order of the first: a trial that failed and was asked again is in the journal once per time.
    known = {record.id: (frozen, record) for frozen, record in found if record is not None}
    ended = {name: at for name, (frozen, _) in known.items() if (at := frozen.datetime_complete) is not None}
    searches = [study for study in studies if study.study_name.startswith("search")]
    records = sorted((record for _, record in known.values()), key=lambda record: record.stage != "search")
    return StudyHistory(records, ended, _importance(searches[-1], objectives) if searches else {})


def read_trials(journal: Path) -> list[FrozenTrial]:
    """Optuna's trials of all versions of the search, in order."""
    studies = [study for study in _studies(journal) if study.study_name.startswith("search")]
    return [trial for study in studies for trial in study.get_trials(deepcopy=False)]


def optuna_study(journal: Path) -> optuna.Study:
    """A copy in memory of the Optuna study of the present space; changes to it reach no file. Raises `UserError`."""
    try:
        searches = [study for study in _studies(journal) if study.study_name.startswith("search")]
        latest = searches[-1]
        copy = optuna.create_study(study_name=latest.study_name, directions=latest.directions)
        copy.add_trials(latest.get_trials(deepcopy=False))
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise _unreadable(journal, error) from error
    return copy


def _studies(journal: Path) -> list[optuna.Study]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(_ReadOnlyBackend(journal))
    return [optuna.load_study(study_name=s.study_name, storage=storage) for s in storage.get_all_studies()]


def _unreadable(journal: Path, error: Exception) -> UserError:
    return UserError(
        f"{journal} cannot be read as a study's journal of this version ({type(error).__name__}: {error}); restore it "
        "from a copy, or read it with the version that wrote it."
    )


def _importance(study: optuna.Study, objectives: Mapping[Any, str]) -> dict[str, dict[str, float]]:
    """Shares by PED-ANOVA (Watanabe et al., 2023, and its form for conditional settings); they add up to 1.

    It compares the settings of the best trials with those of all. At least `TOP_TRIALS` count as the best: more than
    its default of a tenth while trials are few.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < ENOUGH_TRIALS:
        return {}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, TOP_TRIALS / len(complete)))
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one per call, that targets are minimised
        for index, (name, direction) in enumerate(objectives.items()):
            sign = -1.0 if direction == "max" else 1.0

            def target(trial: FrozenTrial, index: int = index, sign: float = sign) -> float:
                return sign * float(trial.values[index])

            # A cost depends on the student alone; a share of any other setting would be chance.
            of_student = [p for p in _settings(complete) if name == "miou" or p.startswith("student")]
            if of_student:
                found[str(name)] = _shares(
                    get_param_importances(study, evaluator=evaluator, target=target, params=of_student)
                )
        if len(objectives) > 1:
            found["frontier"] = _shares(get_param_importances(study, evaluator=evaluator))
    return found


def _settings(complete: list[FrozenTrial]) -> list[str]:
    return list(dict.fromkeys(name for trial in complete for name in trial.params))


def _shares(importances: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in importances.items() if math.isfinite(value)}


class _ReadOnlyBackend(BaseJournalBackend):
    """The complete lines that a journal has now. A last line that is being written is left out."""

    def __init__(self, journal: Path) -> None:
        try:
            lines = journal.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise UserError(f"{journal} cannot be read ({error.strerror}); name a run folder.") from error
        self._entries: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith(b"\n")]

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self._entries[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise AssertionError("a reader writes nothing")
