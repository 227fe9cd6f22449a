"""Warm start: what earlier studies found, as the first trials of this one.

Results of another data set, another teacher or another budget are not comparable, so what is carried over is settings:
the earlier frontiers, then the next non-dominated ranks, are trained here after the published point. A trial whose
whole configuration this study could have drawn is the same training, and its result is taken as it is.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_json
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.constraints import broken
from kdsearch.search.evolution.space_mapping import SpaceMapping, differences, fit
from kdsearch.search.pareto import costs, ranks, spread_order
from kdsearch.search.storage.journal import read_trials
from kdsearch.search.storage.study_storage import StudyStorage, TrialRecord
from kdsearch.search.trial_record import trial_record_of

SHARE = 0.25
"""Share of the study's trials that warm start may take."""

How = Literal["result", "settings", "part", "not"]
WORD = {"result": "result taken", "settings": "trained first", "part": "trained first", "not": "not carried over"}


@dataclass(frozen=True)
class WarmStartEntry:
    """What became of one trial of an earlier study: `how` it was carried over, and why not whole."""

    run: str
    trial: str
    how: How
    settings: dict[str, Any]
    why: str = ""


@dataclass(frozen=True)
class EarlierStudy:
    """An earlier study: complete trials of its search by non-dominated rank, the frontier first."""

    run: RunFolder
    ranked: list[TrialRecord]


def read_earlier(folder: str) -> EarlierStudy:
    """The study in a run folder, which may still be running; nothing in it is changed. Raises `UserError`."""
    run = RunFolder(Path(folder).expanduser().resolve())
    if not run.journal.exists() or not run.space.exists():
        raise UserError(
            f"--warm-start {folder}: no study lies there; give a run folder, one with space.yaml and study.journal."
        )
    run.refuse_links()
    space = load_space(run.space)
    try:
        records = [record for trial in read_trials(run.journal) if (record := trial_record_of(trial)) is not None]
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise UserError(f"--warm-start {folder}: its journal cannot be read ({str(error).splitlines()[0]}).") from error
    complete = [
        record for record in records
        if record.stage == "search" and record.state == "COMPLETE"
        and not broken(space.search.constraints, record.known())
    ]  # fmt: skip
    if not complete:
        raise UserError(f"--warm-start {folder}: no trial of that study is complete yet, so there is nothing to carry.")
    table = costs([record.values() for record in complete], space.search.objectives)
    ranked: list[TrialRecord] = []
    rank_n = ranks(table)
    for rank in range(int(rank_n.max()) + 1):
        members = [i for i, r in enumerate(rank_n) if r == rank]
        ranked += [complete[members[k]] for k in spread_order(table[members])]
    return EarlierStudy(run, ranked)


def warm_start(
    record: StudyStorage, space: SearchSpace, run: RunFolder, studies: Sequence[EarlierStudy]
) -> list[WarmStartEntry]:
    """Carry the best trials of earlier studies into a new one, and keep the list in the run folder."""
    room = max(1, int(space.search.trials * SHARE))
    taken: set[str] = set()
    lines: list[WarmStartEntry] = []
    for study, earlier in _in_turn(studies):
        fitted = fit(space, earlier.config, earlier.params)
        how, why = _carry(record, run, study, earlier, fitted, taken, room - len(taken))
        if how in ("settings", "part"):
            taken.add(json.dumps(dict(fitted.sample.params), sort_keys=True))
        lines.append(WarmStartEntry(study.run.path.name, earlier.id, how, dict(fitted.sample.params), why))
    write_json(run.path / "warm_start.json", {"carried": [asdict(line) for line in lines]})
    return lines


def _in_turn(studies: Sequence[EarlierStudy]) -> Iterator[tuple[EarlierStudy, TrialRecord]]:
    """The best of each study, then the second of each, and so on."""
    for row in itertools.zip_longest(*(study.ranked for study in studies)):
        yield from ((study, earlier) for study, earlier in zip(studies, row, strict=True) if earlier is not None)


def _carry(
    record: StudyStorage,
    run: RunFolder,
    study: EarlierStudy,
    earlier: TrialRecord,
    fitted: SpaceMapping,
    taken: set[str],
    room: int,
) -> tuple[How, str]:
    if fitted.exact and record.knows(earlier.config):
        return "not", "an equal configuration is on record"
    if fitted.exact:
        try:
            # Costs are this study's: latencies of another device do not count here.
            earlier = replace(earlier, cost=record.cost(earlier.config))
        except UserError as error:
            return "not", str(error)
        student = study.run.student(earlier.id)
        if not student.is_dir():
            record.inform(fitted, earlier)
            return "result", "for the sampler alone: its weights were not kept"
        # The weights first: a record on the frontier whose student is missing could not be exported.
        shutil.copytree(student, run.student(record.next_id()), dirs_exist_ok=True)
        record.adopt(fitted, earlier, f"{study.run.path}/{earlier.id}")
        return "result", ""
    if json.dumps(dict(fitted.sample.params), sort_keys=True) in taken:
        return "not", "with what fits of it, it equals one above"
    if dict(fitted.sample.params) == dict(record.space.default().params):
        return "not", "with what fits of it, it is the published point"
    if room <= 0:
        return "not", f"warm start takes {SHARE:.0%} of the trials at most; raise --trials for more"
    record.enqueue(fitted.sample)
    if fitted.dropped:
        return "part", "; ".join(f"{name}: {reason}" for name, reason in fitted.dropped.items())
    if fitted.new:
        return "settings", f"at their default, since new here: {', '.join(fitted.new)}"
    return "settings", "results do not compare: " + "; ".join(differences(fitted, earlier.config)[:2])


def describe_warm_start(carried: Sequence[WarmStartEntry]) -> list[str]:
    """The list, for people: one line a trial, those beyond the room in one."""
    width = max(len(f"{line.run} {line.trial}") for line in carried)
    text = []
    beyond = [line for line in carried if line.how == "not" and "at most" in line.why]
    for line in carried:
        if line not in beyond:
            name = f"{line.run} {line.trial}"
            text.append(f"  {name:{width}}  {WORD[line.how]:16}  {line.why}".rstrip())
    if beyond:
        text.append(f"  {f'{len(beyond)} of lower rank':{width}}  {WORD['not']:16}  {beyond[0].why}")
    counts = {how: sum(line.how == how for line in carried) for how in ("result", "settings", "part", "not")}
    head = (
        f"warm start: {counts['settings'] + counts['part']} settings are trained first, {counts['result']} results are "
        f"taken, {counts['not']} trials are not carried over"
    )
    return [head, *text]
