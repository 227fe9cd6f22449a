"""Versions of a study's space: each has an Optuna study of its own, in one journal.

Optuna refuses a parameter whose options change, and its samplers cannot mix trials of different bounds. So a changed
space starts a new version, `search-2` after `search`, into which every trial is imported that the new space could have
drawn. Trials keep their ids, and the frontier is that of all versions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from kdsearch.config.space.flatten import without_places
from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_text
from kdsearch.io.run_folder import RunFolder

SPACE_ATTR = "space"
"""Attribute of an Optuna study: the text of the space that its trials were drawn from."""


@dataclass
class SpaceExtension:
    """What the sampler of a new version of the space imported from the earlier ones."""

    version: int
    imported: int = 0
    running: list[str] = field(default_factory=list)
    """Ids of trials that continue under their old settings; they are imported when they end."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Ids of finished trials that the new space could not have drawn, each with the reason."""

    def lines(self) -> list[str]:
        """A summary for people."""
        text = [f"the space has changed: version {self.version} imports {self.imported} finished trials"]
        if self.running:
            text.append(f"  running trials continue under their old settings: {', '.join(self.running)}")
        text += [f"  {trial_id} is kept but not imported: {reason}" for trial_id, reason in self.skipped.items()]
        return text


def study_name(version: int) -> str:
    """Name of the Optuna study of a version of the space, counted from 1."""
    return "search" if version == 1 else f"search-{version}"


def same_space(old: SearchSpace, new: SearchSpace) -> bool:
    """Whether two spaces have the same trials, objectives and constraints."""
    return _meaning(old) == _meaning(new)


def _meaning(space: SearchSpace) -> str:
    complete = without_places(space.complete())
    settings = {k: v for k, v in complete.items() if k not in ("name", "description", "search", "confirm")}
    criteria = space.search.model_dump(mode="json", include={"objectives", "constraints", "latency"})
    return json.dumps([settings, criteria], sort_keys=True)


def check_comparable(old: SearchSpace, new: SearchSpace) -> None:
    """Raise `UserError` if results of the two spaces could not share a frontier."""
    before, after = _placeless(old), _placeless(new)
    if old.name != new.name:
        raise UserError(f"A study keeps its name: {old.name} cannot be resumed as {new.name}; start a new study.")
    _compare("data", "data set and size", before["data"], after["data"], "augment")
    _compare("teacher", "teacher", before["teacher"] or {}, after["teacher"] or {}, "fuse")
    if old.search.latency != new.search.latency:
        raise UserError(
            f"search.latency cannot change on --resume (it is {old.search.latency or 'not set'}): the latencies of "
            "earlier trials would not compare; start a new study with --warm-start instead."
        )
    epochs = before["train"]["epochs"]
    if epochs != after["train"]["epochs"] or "train.epochs" in new.parameters():
        raise UserError(
            f"train.epochs cannot change on --resume (it is {epochs}): trials of different length are "
            "not comparable; start a new study with --warm-start instead."
        )


def _placeless(space: SearchSpace) -> dict[str, Any]:
    """The default trial, without the places of files whose content the study compares."""
    return without_places(space.default().trial.model_dump(mode="json"))


def _compare(section: str, what: str, old: dict[str, Any], new: dict[str, Any], free: str) -> None:
    """Raise `UserError` if anything but the setting `free` differs."""
    keys = [key for key in [*old, *(k for k in new if k not in old)] if key != free]
    changed = [f"{section}.{key}" for key in keys if old.get(key) != new.get(key)]
    if changed:
        raise UserError(
            f"{', '.join(changed)} cannot change on --resume: results under another {what} are not comparable; "
            "start a new study with --warm-start instead."
        )


def keep_old_spaces(run: RunFolder, texts: list[str]) -> None:
    """Write the earlier versions of the space as `space-1.yaml`, `space-2.yaml`, ... beside `space.yaml`."""
    for number, text in enumerate(texts, 1):
        path = run.path / f"space-{number}.yaml"
        if not path.exists():
            write_text(path, text)


def space_of_resumed_study(
    run: RunFolder, edited: str | None, overrides: list[str], data: tuple[str, str] | None = None
) -> SearchSpace:
    """The space of a resumed study: its own, or `edited`, with overrides. `UserError` if results would not compare.

    `data` is the name and the new place of its data set.
    """
    space = load_space(edited or run.space, overrides=overrides, data=data)
    if edited or overrides or data:
        check_comparable(load_space(run.space), space)
    return space
