"""One trial in this process, without Ray: `kdsearch train trial.yaml`."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch

from kdsearch.config.networks import network_name
from kdsearch.config.trial import TrialConfig
from kdsearch.data.loader import steps_per_epoch
from kdsearch.data.registry import open_reader
from kdsearch.data.store.store import Store, build_store
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_folder_atomically, write_folder_once
from kdsearch.io.locks import locked
from kdsearch.io.run_folder import RunFolder
from kdsearch.io.targets import check_target
from kdsearch.models.checkpoint import checkpoint_file
from kdsearch.train.memory import TrialError
from kdsearch.train.requirements import check_trial, check_weights
from kdsearch.train.resources import Resources
from kdsearch.train.teacher import teacher_folder, teacher_lock, teacher_trial
from kdsearch.train.teacher_cache.plan import CachePlan, plan_cache
from kdsearch.train.trial import Trial


def train_standalone(config: TrialConfig, folder: RunFolder, out: Path, log: Callable[[str], None]) -> None:
    """Train `config`, after its teacher unless that exists already, and write the student to `out`.

    A trial without terms reads no teacher, so none is trained or loaded for it.

    Data stores and teachers are kept in the cache of `folder` and shared with studies.
    """
    check_target("--out", out)
    if out.exists():
        raise UserError(f"{out} exists already; give another --out.")
    info = open_reader(config.data).info
    check_trial(config, info)
    check_weights(config, info)
    store = opened_store(config, folder, log)
    weights, plan = None, None
    if config.distill:
        weights = teacher_weights(config, store, folder, log)
        planned = plan_cache([config], store, folder.teacher_maps, weights)
        plan = planned.plan
        if planned.why:
            log(planned.why)
    write_folder_atomically(out.resolve(), lambda target: _train(config, store, weights, plan, target, "student", log))
    log(f"wrote {out}")


def teacher_weights(config: TrialConfig, store: Store, folder: RunFolder, log: Callable[[str], None]) -> Path:
    """The weights of the teacher of `config`, trained in this process unless they exist already."""
    assert config.teacher is not None
    if config.teacher.checkpoint is not None:
        return checkpoint_file(config.teacher.checkpoint, config.teacher.network())
    target = teacher_folder(config, store, folder.teachers)
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(teacher_lock(target), lambda: log(f"another process trains the teacher {target}; waiting for it")):
        if not target.exists():
            alone = teacher_trial(config)
            write_folder_once(target, lambda path: _train(alone, store, None, None, path, "teacher", log))
    return target / "model.safetensors"


def opened_store(config: TrialConfig, folder: RunFolder, log: Callable[[str], None]) -> Store:
    """The store of the trial's data; a line is logged before it is built."""
    said = False

    def progress(done: int, total: int) -> None:
        nonlocal said
        if not said:
            log(f"data {config.data.name}: reading {total} images")
        said = True

    store = build_store(config.data, folder.stores, progress, log=log)
    for note in store.notes:
        log(f"note: {note}")
    return store


def device() -> torch.device:
    """The device on which a single process trains."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _train(
    config: TrialConfig,
    store: Store,
    weights: Path | None,
    plan: CachePlan | None,
    target: Path,
    label: str,
    log: Callable[[str], None],
) -> None:
    images = len(store.split("train"))
    steps = steps_per_epoch(images, config.train.batch_size)
    log(
        f"{label} {network_name(config.student)} on {device()}: data {store.info.name}, {images} images of "
        f"{store.size[0]}x{store.size[1]}, {steps} steps per epoch, {config.train.epochs} epochs"
    )
    metrics: dict[str, float] = {}
    clock = _StepClock(steps, config.train.epochs, lambda line: log(f"{label}: {line}"))
    try:
        trial = Trial(config, Resources(store.path, weights, device(), cache_plan=plan, log=log))
        while trial.epoch < config.train.epochs:
            metrics = trial.train_epoch(clock.step) | trial.validate()
            log(
                f"{label} epoch {trial.epoch}/{config.train.epochs}: "
                f"loss {metrics['loss/total']:.4f}, mIoU {metrics['val/miou']:.4f}"
            )
    except TrialError as error:
        raise UserError(f"the {label} cannot be trained: {error}") from error
    trial.save_student(target, metrics)


class _StepClock:
    """Says once, after a few steps, how long an epoch takes."""

    STEPS = 3

    def __init__(self, steps: int, epochs: int, say: Callable[[str], None]) -> None:
        self._steps, self._epochs, self._say = steps, epochs, say
        self._ends = [time.monotonic()]

    def step(self) -> None:
        """Count a step. The first one, which also sets everything up, is timed only where it is the whole epoch."""
        self._ends.append(time.monotonic())
        if len(self._ends) == 1 + min(self.STEPS, self._steps):
            timed = self._ends[1:] if self._steps > 1 else self._ends
            epoch_s = (timed[-1] - timed[0]) / (len(timed) - 1) * self._steps
            whole = timedelta(seconds=round(epoch_s * self._epochs))
            self._say(f"about {epoch_s:.2f} s per epoch without validation, {whole} in all")
