"""Callbacks: the protocol by which anything follows a study.

Contract
--------

A callback is a subclass of `StudyCallback` that overrides the events it wants; every method of the base does nothing.
The driver calls all callbacks in one thread, one event at a time, in the order in which they were given.
`kdsearch.testing.callbacks.CallbackConformance` tests this contract.

Order of events
---------------

`on_study_start` comes first and `on_study_end` last, each exactly once per driver. In between, for each trial:
`on_trial_start`, any number of `on_trial_result` (one per epoch) and `on_trial_restart`, then `on_trial_end`. A study
that is resumed starts again with `on_study_start`; trials that were running get a second `on_trial_start`.
`on_frontier` follows each trial that completes and is called once before the first trial.

Errors
------

An exception in a callback never costs the study: it is reported once with the name of the callback and of the event,
and the next event is delivered as usual. The one exception is a callback whose `critical` is true (the writer of the
run folder): its exception ends the study, since results could not be kept.

Records
-------

A `TrialRecord` that a callback receives is the driver's own: read it, do not change it. Copy what has to outlive the
call.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from kdsearch.errors import addressed

if TYPE_CHECKING:
    from kdsearch.config.space.search_space import SearchSpace
    from kdsearch.search.confirm import Confirmation
    from kdsearch.search.trial_record import TrialRecord

Status = Literal["running", "done", "interrupted", "failed"]
"""States of a study. Only `done` is final: the others can be resumed."""


@dataclass(frozen=True)
class StudyInfo:
    """A study at its start: the name and path of its run folder, and its space."""

    name: str
    path: Path
    space: SearchSpace


@dataclass(frozen=True)
class StudyEnd:
    """How a study ended.

    `failure` is the reason of status `failed`, else empty. `members` are the frontier, cheapest first; `confirmed` maps
    their ids to the repeats and controls; `notes` are lines for people.
    """

    status: Status
    failure: str = ""
    members: Sequence[TrialRecord] = ()
    confirmed: Mapping[str, Confirmation] = field(default_factory=dict)
    hypervolume: float = 0.0
    notes: Sequence[str] = ()


class StudyCallback:
    """Base of all callbacks; see the module for the order of events, errors and the use of records."""

    critical: ClassVar[bool] = False
    """Whether an exception of this callback ends the study."""

    def on_study_start(self, study: StudyInfo) -> None:
        """The run folder exists and the space is valid; nothing is trained yet."""

    def on_message(self, text: str) -> None:
        """One line of plain text for people: a step or a decision of the driver."""

    def on_progress(self, label: str, done: int, total: int) -> None:
        """Progress of a step before training, such as building the data store; `done == total` is its end."""

    def on_trials_restored(self, trials: Sequence[TrialRecord]) -> None:
        """A resumed study: the trials of its earlier drivers. Called before the first trial starts."""

    def on_slots(self, slots: int) -> None:
        """From now on up to `slots` trials run at a time; the cluster may grow and shrink."""

    def on_trial_start(self, trial: TrialRecord) -> None:
        """A trial was handed to the engine."""

    def on_trial_result(self, trial: TrialRecord) -> None:
        """An epoch has ended: `trial.epoch` and `trial.metrics` are its number and its metrics."""

    def on_trial_restart(self, trial: TrialRecord, reason: str) -> None:
        """The workers of a trial were lost; it continues from its last checkpoint."""

    def on_trial_end(self, trial: TrialRecord) -> None:
        """A trial has ended; `trial.state` is its verdict and `trial.reason` the reason, which may be empty."""

    def on_frontier(self, members: Sequence[TrialRecord], hypervolume: float) -> None:
        """The frontier after a completed trial: its members, cheapest first, and the hypervolume they dominate."""

    def on_study_end(self, end: StudyEnd) -> None:
        """The study has ended, whatever its status; the run folder is complete."""

    def close(self) -> None:
        """Release what the callback holds; called last, also where an exception ended the study. May come twice."""


class CallbackList(StudyCallback):
    """Delivers each event to several callbacks in turn; see the module for the handling of their exceptions."""

    def __init__(self, callbacks: Iterable[StudyCallback] = ()) -> None:
        self.callbacks = list(callbacks)
        self._reported: set[tuple[int, str]] = set()

    def insert(self, at: int, callback: StudyCallback, study: StudyInfo) -> None:
        """Add a callback to a study that has started; it receives `on_study_start` now."""
        self.callbacks.insert(at, callback)
        self._deliver("on_study_start", lambda each: each.on_study_start(study), [callback])

    def on_study_start(self, study: StudyInfo) -> None:
        self._deliver("on_study_start", lambda each: each.on_study_start(study))

    def on_message(self, text: str) -> None:
        self._deliver("on_message", lambda each: each.on_message(addressed(text)))

    def on_progress(self, label: str, done: int, total: int) -> None:
        self._deliver("on_progress", lambda each: each.on_progress(label, done, total))

    def on_trials_restored(self, trials: Sequence[TrialRecord]) -> None:
        self._deliver("on_trials_restored", lambda each: each.on_trials_restored(trials))

    def on_slots(self, slots: int) -> None:
        self._deliver("on_slots", lambda each: each.on_slots(slots))

    def on_trial_start(self, trial: TrialRecord) -> None:
        self._deliver("on_trial_start", lambda each: each.on_trial_start(trial))

    def on_trial_result(self, trial: TrialRecord) -> None:
        self._deliver("on_trial_result", lambda each: each.on_trial_result(trial))

    def on_trial_restart(self, trial: TrialRecord, reason: str) -> None:
        self._deliver("on_trial_restart", lambda each: each.on_trial_restart(trial, reason))

    def on_trial_end(self, trial: TrialRecord) -> None:
        self._deliver("on_trial_end", lambda each: each.on_trial_end(trial))

    def on_frontier(self, members: Sequence[TrialRecord], hypervolume: float) -> None:
        self._deliver("on_frontier", lambda each: each.on_frontier(members, hypervolume))

    def on_study_end(self, end: StudyEnd) -> None:
        self._deliver("on_study_end", lambda each: each.on_study_end(end))

    def close(self) -> None:
        self._deliver("close", lambda each: each.close())

    def _deliver(
        self, event: str, call: Callable[[StudyCallback], Any], only: Sequence[StudyCallback] | None = None
    ) -> None:
        for callback in self.callbacks if only is None else only:
            if callback.critical:
                call(callback)
                continue
            try:
                call(callback)
            except Exception as error:  # noqa: BLE001  a callback of the user's must not cost the study
                self._report(callback, event, error)

    def _report(self, callback: StudyCallback, event: str, error: Exception) -> None:
        """Report it to the other callbacks, and its traceback to standard error, once per callback and event."""
        if (id(callback), event) in self._reported:
            return
        traceback.print_exception(error)
        self._reported.add((id(callback), event))
        text = (
            f"callback {type(callback).__name__}.{event} failed ({type(error).__name__}: {error}); the study continues"
        )
        for other in self.callbacks:
            if other is not callback and not (other.critical and event == "on_message"):
                try:
                    other.on_message(text)
                except Exception:  # noqa: BLE001  reported in its own turn
                    traceback.print_exc()
