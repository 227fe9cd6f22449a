"""Whether the space that is requested with `--resume` is that of the study, which keeps its own (`space.yaml`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdsearch.api.space import Space
from kdsearch.config.space.flatten import flatten, trial_key, without_places
from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.config.space.shipped import find_space, spaces_folder
from kdsearch.config.space.yaml_tree import parse_yaml, plain
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.study_record import StudyRecord

NAMED = 5
"""Settings that a message names."""


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
    if extended or record is None:  # an earlier version did not record the request
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
