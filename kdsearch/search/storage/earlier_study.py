"""The study in another run folder, for a warm start. It may still be running; nothing in it is changed."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from kdsearch.config.space.search_space import load_space
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.constraints import broken
from kdsearch.search.evolution.warm_start import EarlierStudy
from kdsearch.search.pareto import costs, ranks, spread_order
from kdsearch.search.storage.reader import read_trials
from kdsearch.search.study_record import StudyRecord
from kdsearch.search.trial_record import TrialRecord, trial_record_of


def read_earlier(folder: str) -> EarlierStudy:
    """The study in a run folder. Raises `UserError` if there is none, or it has no complete trial yet."""
    run = RunFolder(Path(folder).expanduser().resolve())
    if not run.journal.exists() or not run.space.exists():
        raise UserError(
            f"--warm-start {folder}: it holds no study; name a run folder, one with space.yaml and study.journal."
        )
    run.refuse_links()
    space = load_space(run.space)
    try:
        records = [record for trial in read_trials(run.journal) if (record := trial_record_of(trial)) is not None]
    except (ValidationError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise UserError(f"--warm-start {folder}: its journal cannot be read ({str(error).splitlines()[0]}).") from error
    complete = [
        record for record in records
        if record.stage == "search" and record.state == "COMPLETE"
        and not broken(space.search.constraints, record.known())
    ]  # fmt: skip
    if not complete:
        raise UserError(f"--warm-start {folder}: no trial of that study is complete yet, so there is nothing to reuse.")
    costs_nm = costs([record.values() for record in complete], space.search.objectives)
    ranked: list[TrialRecord] = []
    rank_n = ranks(costs_nm)
    for rank in range(int(rank_n.max()) + 1):
        members = [i for i, r in enumerate(rank_n) if r == rank]
        ranked += [complete[members[k]] for k in spread_order(costs_nm[members])]
    return EarlierStudy(run, ranked, StudyRecord.load(run))
