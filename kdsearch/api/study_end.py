"""The end of a study: its results, delivered to the callbacks."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from kdsearch.search.callbacks import CallbackList, Status, StudyEnd
from kdsearch.search.controller import StudyController
from kdsearch.search.stopping.rung_state import RungState


def end_study(
    controller: StudyController,
    rungs: RungState,
    outcome: tuple[Status, str],
    notes: Sequence[str],
    callback: CallbackList,
) -> StudyEnd:
    """Deliver and return the end of a study; `outcome` is its status, and the reason of `failed`.

    A disk that is full at the last write of the tables makes the study a failed one: the critical callbacks, which
    write files, are left out then.
    """
    status, failure = outcome
    if audit := rungs.audit_report():
        early = f"of {audit['complete']} trials that trained on to audit it, {audit['wrong']} ended on the frontier"
        notes = [*notes, f"early stopping: {early}"]
    end = StudyEnd(status, failure, controller.members(), controller.confirmed(), controller.hypervolume, tuple(notes))
    try:
        callback.on_study_end(end)
    except OSError as error:
        traceback.print_exc()
        failure = f"{error}; make room or mend it, then go on"
        end = StudyEnd("failed", failure, end.members, end.confirmed, end.hypervolume, ())
        CallbackList([each for each in callback.callbacks if not each.critical]).on_study_end(end)
    return end
