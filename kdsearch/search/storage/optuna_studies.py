"""The Optuna studies in the journal of one study.

`search`, `search-2`, ... hold the draws of the sampler, one study per version of the space (see `space_versions`);
`confirm` holds repeats and controls, which no sampler draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.storages import BaseStorage

from kdsearch.config.space.search_space import SearchSpace, space_from_text
from kdsearch.errors import UserError
from kdsearch.search.evolution.space_versions import SPACE_ATTR, check_comparable, same_space, study_name
from kdsearch.search.sampling.factory import make_sampler
from kdsearch.search.sampling.search_study import SearchStudy

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class OptunaStudies:
    """The open studies of a journal.

    `search` belongs to the present version of the space, `earlier` to those before it, oldest first; `old_spaces` are
    the texts of their spaces. `is_new` means that the present version starts now: `begin` has to be called for it once
    trials of the earlier versions are imported. `random` draws at random.
    """

    search: SearchStudy
    confirm: optuna.Study
    earlier: list[optuna.Study]
    old_spaces: list[str]
    is_new: bool
    random: optuna.samplers.RandomSampler

    def begin(self, space: SearchSpace) -> None:
        """Enqueue the defaults as the first trial, and record the space."""
        self.search.enqueue_trial(dict(space.default().params))
        # Last: a version without it is recognised as unfinished.
        self.search.set_user_attr(SPACE_ATTR, space.record())


def open_studies(storage: BaseStorage, space: SearchSpace) -> OptunaStudies:
    """Load the studies of a journal; create one for `space` if it is new, or if it has changed.

    Raises `UserError` if results under `space` could not be compared with those in the journal.
    """
    versions = _versions(storage)
    texts = [study.user_attrs[SPACE_ATTR] for study in versions]
    is_new = not texts or _has_changed(texts[-1], space)
    old_spaces = texts if is_new else texts[:-1]
    name = study_name(len(old_spaces) + 1)
    if is_new:
        directions: list[Direction] = [
            "maximize" if direction == "max" else "minimize" for direction in space.search.objectives.values()
        ]
        optuna.create_study(storage=storage, study_name=name, directions=directions)
    confirm = optuna.create_study(storage=storage, study_name="confirm", load_if_exists=True)
    # A resumed study must not repeat the random numbers of its first driver.
    seed = space.search.seed + sum(len(study.get_trials(deepcopy=False)) for study in versions)
    sampler = space.search.sampler
    return OptunaStudies(
        search=SearchStudy(name, storage, make_sampler(sampler, seed), getattr(sampler, "history", None)),
        confirm=confirm,
        earlier=versions[: len(old_spaces)],
        old_spaces=old_spaces,
        is_new=is_new,
        random=optuna.samplers.RandomSampler(seed=seed),
    )


def _versions(storage: BaseStorage) -> list[optuna.Study]:
    """The studies of the search, oldest first; one that an earlier driver did not finish to begin is deleted."""
    names = [name for name in optuna.get_all_study_names(storage) if name.startswith("search")]
    versions = [optuna.load_study(study_name=name, storage=storage) for name in names]
    if versions and SPACE_ATTR not in versions[-1].user_attrs:
        # The driver died while it began this version; no trial was drawn yet.
        if any("config" in trial.user_attrs for trial in versions[-1].get_trials(deepcopy=False)):
            raise UserError(
                "This study was begun by an earlier version of kdsearch, whose journals this one cannot resume; start "
                "a new one with --name."
            )
        optuna.delete_study(study_name=versions.pop().study_name, storage=storage)
    return versions


def _has_changed(text: str, space: SearchSpace) -> bool:
    """Whether `space` differs from the one in `text`. Raises `UserError` if their results would not compare."""
    last = space_from_text(text, "the study's journal")
    if same_space(last, space):
        return False
    check_comparable(last, space)
    return True
