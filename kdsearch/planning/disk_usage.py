"""The disk usage of a study."""

from __future__ import annotations

import shutil
from pathlib import Path

from kdsearch.config.space.search_space import SearchSpace
from kdsearch.config.trial import TrialConfig
from kdsearch.data.store.arrow_file import column_layout, sample_bytes
from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.models.cost import network_cost
from kdsearch.train.teacher_cache.plan import AUTO_SHARE, plan_cache

FLOAT = 4


def disk_usage(
    space: SearchSpace, store: Store, images: dict[str, int], storage: Path, slots: int, frontier: int
) -> tuple[dict[str, float], dict[str, str]]:
    """Bytes per kind of file, and remarks on some. `store` has the shape of the data set, `images` its counts."""
    config = space.default().trial
    found = {"data store": float(sum(images.values()) * sample_bytes(column_layout(store.info, store.size)))}
    notes: dict[str, str] = {}
    students = [network_cost(trial.student, store.info, store.size).params_m for trial in _runnable(space, store)]
    slots_of_optimizer = 1 if config.train.optimizer == "sgd" else 2
    largest = max(students) * 1e6 * FLOAT
    has_teacher = config.teacher is not None and space.distils()
    if config.teacher is not None and has_teacher:
        found["teacher"] = network_cost(config.teacher.network(), store.info, store.size).params_m * 1e6 * FLOAT
    found["checkpoints"] = slots * largest * (1 + slots_of_optimizer)
    notes["checkpoints"] = f"{slots} of running trials, the largest student; without parameters of terms"
    found["students"] = frontier * largest
    notes["students"] = f"weights of {frontier} points of the frontier, the largest student"
    if has_teacher:
        free = free_disk(storage)
        for mode in ("logits", "taps"):
            size = _maps(space, store, images["train"], storage, mode)
            if size is not None:
                found[f"teacher maps, {mode}"] = size
        notes |= _of_maps(found, config, free)
    return found, notes


def _maps(space: SearchSpace, store: Store, train: int, storage: Path, mode: str) -> float | None:
    """Bytes of a teacher cache of this mode; None where no trial would read it."""
    trials = []
    for trial in _runnable(space, store):
        if trial.teacher is not None:
            teacher = trial.teacher.model_copy(update={"cache": mode})
            trials.append(trial.model_copy(update={"teacher": teacher}))
    try:
        planned = plan_cache(trials, store, storage)
    except UserError:
        return None  # every trial reads taps as well
    if planned.plan is None:
        return None
    teachers = {trial.teacher.network().model_dump_json(): trial for trial in trials if trial.teacher is not None}
    sizes = [planned.plan.nbytes(trial, store) for trial in teachers.values()]
    return sum(sizes) / len(store.split("train")) * train


def _of_maps(found: dict[str, float], config: TrialConfig, free: int) -> dict[str, str]:
    assert config.teacher is not None
    fits = [mode for mode in ("taps", "logits") if found.get(f"teacher maps, {mode}", free) <= AUTO_SHARE * free]
    taken = config.teacher.cache
    notes = {}
    for mode in ("logits", "taps"):
        if taken == mode or (taken == "auto" and fits[:1] == [mode]):
            notes[f"teacher maps, {mode}"] = f"taken: teacher.cache is {taken}"
        elif fits[:1] == [mode]:
            notes[f"teacher maps, {mode}"] = "not taken; teacher.cache=auto would"
        else:
            notes[f"teacher maps, {mode}"] = "not taken"
    return notes


def _runnable(space: SearchSpace, store: Store) -> list[TrialConfig]:
    found = []
    for _, sample in space.corners():
        try:
            network_cost(sample.trial.student, store.info, store.size)
        except UserError:
            continue
        found.append(sample.trial)
    return found


def free_disk(folder: Path) -> int:
    """Free bytes of the disk of `folder`, which need not exist yet."""
    folder = folder.expanduser().resolve()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
