"""Warm start: results of earlier studies as the first trials of a new one.

Results of another data set, another teacher or another budget are not comparable, so only settings are reused: those of
the earlier frontiers, then of the next non-dominated ranks, are enqueued after the defaults. A trial whose whole
configuration the new study could have drawn, on data and weights of equal content, is the same training: its result is
imported, wherever the files lie.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

from kdsearch.config.space.search_space import Sample, SearchSpace
from kdsearch.config.trial import TrialConfig
from kdsearch.data.store.content import Content
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_json
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.evolution.space_mapping import SpaceMapping, differences, map_trial
from kdsearch.search.study_record import StudyRecord, changed_data, in_terms_of
from kdsearch.search.trial_record import TrialRecord

SHARE = 0.25
"""Share of the study's trials that warm start may enqueue."""

How = Literal["result", "settings", "part", "not"]
LEFT_OUT = "result left out:"
WORDS: dict[How, str] = {"result": "imported", "settings": "enqueued", "part": "enqueued", "not": "skipped"}


@dataclass(frozen=True)
class WarmStartEntry:
    """The use of one trial of an earlier study, as `warm_start.json` has it.

    `how` is `result` (imported), `settings` (enqueued), `part` (enqueued without settings that this space lacks) or
    `not` (skipped); `settings` are those of the nearest sample of this space, `why` the reason of what was not reused.
    """

    run: str
    trial: str
    how: How
    settings: dict[str, Any]
    why: str = ""


@dataclass(frozen=True)
class EarlierStudy:
    """An earlier study: complete trials of its search by non-dominated rank, the frontier first.

    `record` is None for a study of an earlier version, which did not record the content of its data.
    """

    run: RunFolder
    ranked: list[TrialRecord]
    record: StudyRecord | None = None


class ImportTarget(Protocol):
    """The part of `StudyStorage` that a warm start needs; storage builds on this package."""

    def knows(self, config: TrialConfig) -> bool: ...
    def cost(self, config: TrialConfig) -> dict[str, float]: ...
    def next_id(self) -> str: ...
    def enqueue(self, sample: Sample) -> None: ...
    def inform_sampler(self, mapping: SpaceMapping, record: TrialRecord) -> None: ...
    def import_trial(self, mapping: SpaceMapping, earlier: TrialRecord, origin: str) -> TrialRecord: ...


def warm_start(
    storage: ImportTarget, space: SearchSpace, run: RunFolder, studies: Sequence[EarlierStudy], ours: StudyRecord
) -> list[WarmStartEntry]:
    """Import or enqueue the best trials of earlier studies, and write the list to `warm_start.json` of the run.

    Results are taken only where the content of the data set and of all weights is that of `ours`, this study's.
    """
    other = {study.run.path: _other_data(study, run, ours) for study in studies}
    room = max(1, int(space.search.trials * SHARE))
    enqueued: set[str] = set()
    entries: list[WarmStartEntry] = []
    for study, earlier in _in_turn(studies):
        unlike = other[study.run.path]
        if study.record is not None and not unlike:
            config, unlike = in_terms_of(earlier.config, study.record, ours, space.default().trial)
            earlier = replace(earlier, config=config)
        mapping = map_trial(space, earlier.config, earlier.params)
        params = dict(mapping.sample.params)
        how: How
        if mapping.exact and not unlike:
            how, why = _import(storage, run, study, earlier, mapping)
        elif reason := _reason_to_skip(space, params, enqueued, room):
            how, why = "not", reason
        else:
            storage.enqueue(mapping.sample)
            enqueued.add(_key(params))
            how, why = _describe_enqueued(mapping, earlier)
        if mapping.exact and unlike:
            why = f"{LEFT_OUT} {unlike}" + (f"; {why}" if how == "not" else "")
        entries.append(WarmStartEntry(study.run.path.name, earlier.id, how, params, why))
    write_json(run.path / "warm_start.json", {"carried": [asdict(entry) for entry in entries]})
    return entries


def _in_turn(studies: Sequence[EarlierStudy]) -> Iterator[tuple[EarlierStudy, TrialRecord]]:
    """The best of each study, then the second of each, and so on."""
    for row in itertools.zip_longest(*(study.ranked for study in studies)):
        yield from ((study, earlier) for study, earlier in zip(studies, row, strict=True) if earlier is not None)


def _other_data(study: EarlierStudy, run: RunFolder, ours: StudyRecord) -> str:
    """Why results of a study do not hold for the data of this one; empty if they do."""
    if study.record is None:
        return "a study of an earlier version did not record its data"
    if study.record.data == ours.data:
        return ""
    changes = changed_data(study.run, Content.load(run.content), lambda split, key, at: f"{split} {key}")
    return f"its data set is another one: {changes}"


def _import(
    storage: ImportTarget, run: RunFolder, study: EarlierStudy, earlier: TrialRecord, mapping: SpaceMapping
) -> tuple[How, str]:
    """Import the result of a trial that this study could have drawn."""
    if storage.knows(earlier.config):
        return "not", "the study has an equal configuration"
    try:
        # Costs are measured by this study: latencies of another device do not compare.
        earlier = replace(earlier, cost=storage.cost(earlier.config))
    except UserError as error:
        return "not", str(error)
    student = study.run.student(earlier.id)
    if not student.is_dir():
        storage.inform_sampler(mapping, earlier)
        return "result", "for the sampler only: its weights were not kept"
    # The weights first: a frontier member without its student could not be exported.
    shutil.copytree(student, run.student(storage.next_id()), dirs_exist_ok=True)
    storage.import_trial(mapping, earlier, f"{study.run.path}/{earlier.id}")
    return "result", ""


def _reason_to_skip(space: SearchSpace, params: dict[str, Any], enqueued: set[str], room: int) -> str:
    """Why a sample that is not equal to its original is not enqueued; empty if it is."""
    if _key(params) in enqueued:
        return "its settings that exist in this space equal those of a trial above"
    if params == dict(space.default().params):
        return "its settings that exist in this space are the defaults"
    if len(enqueued) >= room:
        return f"warm start enqueues {SHARE:.0%} of the trials at most; raise --trials for more"
    return ""


def _describe_enqueued(mapping: SpaceMapping, earlier: TrialRecord) -> tuple[How, str]:
    if mapping.dropped:
        return "part", "; ".join(f"{name}: {reason}" for name, reason in mapping.dropped.items())
    if mapping.new:
        return "settings", f"new in this space, at their default: {', '.join(mapping.new)}"
    return "settings", "results do not compare: " + "; ".join(differences(mapping, earlier.config)[:2])


def _key(params: dict[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


def describe_warm_start(entries: Sequence[WarmStartEntry]) -> list[str]:
    """The list for people: a summary, then one line per trial; those beyond the share are one line."""
    beyond = [entry for entry in entries if entry.how == "not" and "at most" in entry.why]
    rows = [(f"{entry.run} {entry.trial}", entry) for entry in entries if entry not in beyond]
    if beyond:
        rows.append((f"{len(beyond)} of lower rank", beyond[0]))
    width = max(len(name) for name, _ in rows)
    counts = {word: sum(WORDS[entry.how] == word for entry in entries) for word in WORDS.values()}
    head = (
        f"warm start: {counts['enqueued']} settings are enqueued, {counts['imported']} results are imported, "
        f"{counts['skipped']} trials are skipped"
    )
    left_out = Counter((entry.run, entry.why.partition("; ")[0]) for entry in entries if LEFT_OUT in entry.why)
    notes = [
        f"  {run}: results left out: {number}, since {why[len(LEFT_OUT) + 1 :]}"
        for (run, why), number in left_out.items()
    ]
    return [head, *notes, *(f"  {name:{width}}  {WORDS[entry.how]:8}  {entry.why}".rstrip() for name, entry in rows)]
