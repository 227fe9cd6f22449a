"""Whether a resumed study is still itself: the space that was requested, the content of its data, its weights.

A study keeps what its results depend on in a `StudyRecord`, beside its space. A difference is refused with the
remedy, or reported.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kdsearch.api.request import StudyRequest
from kdsearch.api.resumed_space import NAMED, check_defaults, check_requested, source_of
from kdsearch.api.space import Space
from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.data.store.content import Content
from kdsearch.data.store.file_digests import FileDigests
from kdsearch.data.store.store import Store, open_digests
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_text
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.study_record import StudyRecord, changed_data, named_weights
from kdsearch.search.summary import versions

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


class StudyIdentity:
    """The identity of the study that a driver runs. `record` is None until the study has one.

    Raises `UserError` at once where another space than the study's is requested; `notes` is what else to say of it.
    """

    def __init__(self, request: StudyRequest, run: RunFolder) -> None:
        self.run, self._request = run, request
        note = check_requested(request.space, run, bool(request.extend)) if request.resume else ""
        self.notes = [note] if note else []
        self.record: StudyRecord | None = None
        self._teacher_noted = False

    def check(self, space: SearchSpace, say: Say, progress: Progress) -> None:
        """Compare data and weights of a resumed study with its record, before anything is built from them.

        Raises `UserError` for other content.
        """
        if not (self._request.resume and self.run.journal.exists()):
            return
        record = StudyRecord.load(self.run)
        if record is None:
            say(
                "this study was begun by an earlier version of kdsearch, which did not record the content of its data: "
                "that of now is recorded, and its store and its teacher are made again where they are not found"
            )
            return
        kept, trial = load_space(self.run.space).default().trial, space.default().trial
        digests = open_digests(trial.data, self.run.stores)
        self._check_data(record, digests, digests.read_all(progress), trial.data.path)
        weights = named_weights(space)
        changed = [path for path, digest in weights.items() if record.weights.get(path, digest) != digest]
        before, now = (each.teacher and each.teacher.checkpoint for each in (kept, trial))
        if before and now and now != before and weights.get(now) != record.weights.get(before):
            changed.append(now)
        if changed:
            raise UserError(
                f"{', '.join(changed[:NAMED])} {'hold' if len(changed) > 1 else 'holds'} other weights than when the "
                f"study in {self.run.path} began: bring the files back, or start a new study with --warm-start "
                f"{self.run.path}."
            )
        digests.save()
        if kept.data.path != trial.data.path:
            say(f"the data set {trial.data.name} has moved from {kept.data.path} to {trial.data.path}: its content is "
                "the same")  # fmt: skip
        for name, version in versions().items():
            if record.versions.get(name, version) != version:
                say(f"this study began with {name} {record.versions[name]} and goes on with {version}")
        self.record = replace(record, weights={**record.weights, **weights})
        if self._request.extend:
            self.record = replace(self.record, given=_plain(space), source=source_of(self._request.extend))

    def begin(self, space: SearchSpace, store: Store, storage: StudyStorage) -> StudyRecord:
        """Write the record, a new one where the study has none yet; the content of the data is written once."""
        if self.record is None:
            if self._request.resume:
                check_defaults(storage, space)
            given = self._request.space
            wanted = _plain(given.search_space) if isinstance(given, Space) else {}
            self.record = StudyRecord(store.fingerprint, named_weights(space), "", versions(), wanted, source_of(given))
        if not self.run.content.exists():
            write_text(self.run.content, Content.load(store.path / "content.json").to_json())
        self.record.save(self.run)
        return self.record

    def note_teacher(self, weights: Path, say: Say) -> None:
        """Record the teacher of the trials; report where earlier trials had another."""
        if self._teacher_noted or not weights.exists():  # a network file system may show it a little later
            return
        assert self.record is not None
        noted = self.record.with_teacher(weights)
        if self.record.teacher not in ("", noted.teacher):
            say(
                f"the teacher in {weights.parent} was trained again since this study began: trials from now on learn "
                "from other weights than those before"
            )
        noted.save(self.run)
        self.record, self._teacher_noted = noted, True

    def _check_data(self, record: StudyRecord, digests: FileDigests, content: Content, place: str | None) -> None:
        if content.fingerprint == record.data:
            return

        def file_of(split: str, key: str, at: int) -> str:
            files = digests.reader.files(split, key) if key in digests.keys[split] else []
            if at >= len(files):
                return ""
            inside = place is not None and files[at].is_relative_to(place)
            return str(files[at].relative_to(place) if place is not None and inside else files[at])

        changes = changed_data(self.run, content, file_of)
        raise UserError(
            f"the data set {digests.reader.info.name} is not the one on which the study in {self.run.path} began: "
            f"{changes}. Results would not compare: bring the files back (--data NAME=PLACE where they lie elsewhere), "
            f"or start a new study with --warm-start {self.run.path}, which takes the settings alone."
        )


def _plain(space: SearchSpace) -> dict[str, object]:
    plain: dict[str, object] = json.loads(json.dumps(space.complete()))
    return plain
