"""Whether a resumed study is still itself: the space that was requested, the content of its data, its weights.

A study keeps its space (`space.yaml`, with every default), and what else its results depend on (`StudyRecord`). Nothing
that differs is taken in silence: it is refused with the way on, or said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdsearch.api.space import Space
from kdsearch.config.space.flatten import flatten, trial_key, without_places
from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.config.space.shipped import find_space, spaces_folder
from kdsearch.config.space.yaml_tree import parse_yaml, plain
from kdsearch.data.store.content import Content
from kdsearch.data.store.store import Store, open_digests
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_text
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.study_record import StudyRecord, changed_data, named_weights
from kdsearch.search.summary import versions

Say = Callable[[str], None]
Progress = Callable[[int, int], None]
NAMED = 5
"""Settings that a message names."""


# ---- the space -------------------------------------------------------------------------------------------------------


def check_requested(given: Space | str, run: RunFolder, extended: bool) -> str:
    """Raise `UserError` unless `given` is the space that the study in `run` was begun with.

    Returns a note on a shipped space that has changed since; the study keeps its own.
    """
    kept = load_space(run.space)
    record = StudyRecord.load(run)
    if isinstance(given, Space):
        _check_space(given.search_space, kept, record, run, extended)
        return ""
    tree = _tree(given)
    if tree is None:
        if given not in (kept.name, Path(str((record and record.source.get("file")) or kept.name)).stem):
            raise _other(run, kept.name, given)
        return ""
    before = None if record is None else record.source.get("tree")
    name = str(tree.get("name"))
    if name not in (kept.name, None if before is None else before.get("name")):
        raise _other(run, kept.name, name)
    if extended or before is None or tree == before or load_space(given).complete() == kept.complete():
        return ""
    path = find_space(given)
    changed = _differing(before, tree)
    if path.is_relative_to(spaces_folder()):
        return f"the shipped space {given} has changed since this study began ({changed}): the study keeps its own"
    raise UserError(
        f"{given} has changed since the study in {run.path} began ({changed}), and a resumed study keeps its own: "
        f"add --extend {given} to continue with the changed one, or name {run.space} in its place."
    )


def _check_space(
    given: SearchSpace, kept: SearchSpace, record: StudyRecord | None, run: RunFolder, extended: bool
) -> None:
    before = kept.complete() if record is None or not record.given else dict(record.given)
    if given.name not in (kept.name, before.get("name")):
        raise _other(run, kept.name, given.name)
    if extended or record is None:  # what was requested of an earlier version is not known
        return
    wanted = given.complete()
    if any(without_places(wanted) == without_places(each) for each in (before, kept.complete())):
        return
    raise UserError(
        f"the space given is not the one with which the study in {run.path} began ({_differing(before, wanted)}), and "
        "a resumed study keeps its own: give that space, or its name; changes go in set=, or in a file as extend=."
    )


def _other(run: RunFolder, kept: str, given: str) -> UserError:
    return UserError(
        f"--resume: the study in {run.path} searches the space {kept}, not {given}: give {kept}, or another --name. "
        f"A new study takes over what fits with --warm-start {run.path}."
    )


def source_of(space: Space | str) -> dict[str, Any]:
    """The file of a space as it is now, before its profile, data set and overrides; empty for a dictionary."""
    source = space.source if isinstance(space, Space) else space
    if isinstance(source, Mapping) or (tree := _tree(source)) is None:
        return {}
    return {"file": str(source), "tree": tree}


def _tree(source: str | Path) -> dict[str, Any] | None:
    """The tree of a space's file; None where there is no such file any more."""
    try:
        path = find_space(source)
    except UserError:
        return None
    tree = plain(parse_yaml(path.read_bytes(), lambda line: f"{path}:{line}"))
    return json.loads(json.dumps(tree)) if isinstance(tree, dict) else None


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    old, new = _leaves(before), _leaves(now)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name) and name != "data.path"]
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _leaves(node: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping):
        return {name: node}
    return {k: v for key, child in node.items() for k, v in _leaves(child, f"{name}.{key}" if name else key).items()}


def check_defaults(storage: StudyStorage, space: SearchSpace) -> None:
    """Raise `UserError` where defaults of this version change the space of a study that did not record them."""
    if storage.old_spaces or storage.extension is not None:
        return
    drawn = next((each for each in storage.trials if each.stage == "search" and not each.origin), None)
    if drawn is None or trial_key(ours := space.from_params(drawn.params).trial) == trial_key(drawn.config):
        return
    here, there = flatten(ours), flatten(drawn.config)
    changed = {name: value for name, value in there.items() if here.get(name) != value and name != "data.path"}
    options = " ".join(f"--set '{name}={json.dumps(value)}'" for name, value in changed.items())
    raise UserError(
        f"the study was begun by a version of kdsearch with other defaults ({', '.join(changed)}), and its space does "
        f"not record them: resume it with {options}, or start a new study with --warm-start."
    )


# ---- data and weights ------------------------------------------------------------------------------------------------


def check_content(run: RunFolder, space: SearchSpace, say: Say, progress: Progress) -> StudyRecord | None:
    """Compare data and weights with those of the study in `run`, before anything is built from them.

    Returns the study's record, None if it has none. Raises `UserError` for other content.
    """
    record = StudyRecord.load(run)
    if record is None:
        say(
            "this study was begun by an earlier version of kdsearch, which did not record the content of its data: "
            "that of now is recorded, and its store and its teacher are made again where they are not found"
        )
        return None
    config = space.default().trial.data
    digests = open_digests(config, run.stores)
    content = digests.read_all(progress)
    root = Path(config.path) if config.path else None

    def file_of(split: str, key: str, at: int) -> str:
        files = digests.reader.files(split, key) if key in digests.keys[split] else []
        if at >= len(files):
            return ""
        inside = root is not None and files[at].is_relative_to(root)
        return str(files[at].relative_to(root) if root is not None and inside else files[at])

    if content.fingerprint != record.data and (changes := changed_data(run, content, file_of)):
        raise UserError(
            f"the data set {config.name} is not the one on which the study in {run.path} began: {changes}. Results "
            "would not compare: bring the files back (--data NAME=PLACE where they lie elsewhere), or start a new "
            f"study with --warm-start {run.path}, which takes the settings alone."
        )
    _check_weights(run, record, named_weights(space))
    digests.save()
    kept = load_space(run.space).default().trial.data
    if kept.path != config.path:
        say(f"the data set {config.name} has moved from {kept.path} to {config.path}: its content is the same")
    for name, version in versions().items():
        if record.versions.get(name, version) != version:
            say(f"this study began with {name} {record.versions[name]} and goes on with {version}")
    return record


def _check_weights(run: RunFolder, record: StudyRecord, now: Mapping[str, str]) -> None:
    known = set(record.weights.values())
    changed = [path for path, digest in now.items() if record.weights.get(path, digest) != digest]
    changed += [path for path, digest in now.items() if path not in record.weights and digest not in known]
    if changed:
        raise UserError(
            f"{', '.join(changed[:NAMED])} {'hold' if len(changed) > 1 else 'holds'} other weights than when the study "
            f"in {run.path} began: bring the files back, or start a new study with --warm-start {run.path}."
        )


def new_record(given: Space | str, space: SearchSpace, store: Store) -> StudyRecord:
    """The record of a study that begins now, or that has none yet."""
    complete = given.search_space.complete() if isinstance(given, Space) else {}
    return StudyRecord(
        store.fingerprint, named_weights(space), "", versions(), json.loads(json.dumps(complete)), source_of(given)
    )


def write_record(run: RunFolder, record: StudyRecord, store: Store) -> None:
    """Write the record and the content of the data; both are written once, with what a later driver adds."""
    if not run.content.exists():
        write_text(run.content, Content.load(store.path / "content.json").to_json())
    record.save(run)


def note_teacher(run: RunFolder, record: StudyRecord, weights: Path, say: Say) -> StudyRecord:
    """Record the teacher from which trials learn; say so where earlier trials learned from another."""
    noted = record.with_teacher(weights)
    if record.teacher and record.teacher != noted.teacher:
        say(
            f"the teacher in {weights.parent} was trained again since this study began: trials from now on learn from "
            "other weights than those before"
        )
    if noted != record:
        noted.save(run)
    return noted
