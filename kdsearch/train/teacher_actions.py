"""The teacher of a space by itself: `kdsearch teacher train|evaluate|cache SPACE`. One process, no Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdsearch import models
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.config.trial import TrialConfig
from kdsearch.data.store.store import Store, build_store
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.train.resources import Resources
from kdsearch.train.standalone import device, teacher_weights
from kdsearch.train.teacher import teacher_folder, teacher_trial
from kdsearch.train.teacher_cache.plan import plan_cache
from kdsearch.train.trial import Trial

Say = Callable[[str], None]


def train_teacher(space: SearchSpace, folder: RunFolder, say: Say) -> dict[str, Any]:
    """Train the space's teacher, unless it is there, and say where its weights lie."""
    config, store = _opened(space, folder)
    assert config.teacher is not None
    if config.teacher.checkpoint is not None:
        raise UserError(
            f"the teacher of {space.name} comes as a checkpoint, {config.teacher.checkpoint}; to train one, set "
            "teacher.checkpoint to null."
        )
    is_new = not teacher_folder(config, store, folder.teachers).exists()
    weights = teacher_weights(config, store, folder, say)
    say(f"{'wrote' if is_new else 'it is there already:'} {weights}")
    return {"teacher": str(weights), "trained": is_new}


def evaluate_teacher(space: SearchSpace, folder: RunFolder, say: Say) -> dict[str, Any]:
    """Say the teacher's cost, its mIoU and the IoU of each class over the whole validation split."""
    config, store = _opened(space, folder)
    weights = _existing_weights(config, store, folder, space)
    alone = teacher_trial(config)
    cost = models.cost(alone.student, store.info, config.data.size)
    trial = Trial(alone, Resources(store.path, device=device()))
    models.load_network(trial.module.student, weights)
    metrics = trial.validate()
    height, width = store.size
    say(
        f"{weights}\n{alone.student.arch} {alone.student.encoder}, {cost.gflops:.2f} GFLOPs, {cost.params_m:.2f} M "
        f"parameters, on {len(store.split('val'))} images of {height}x{width}"
    )
    say(f"mIoU            {metrics['val/miou']:.4f}\npixel accuracy  {metrics['val/pixel_accuracy']:.4f}")
    longest = max(map(len, store.info.classes))
    for name in store.info.classes:
        iou = metrics.get(f"val/iou/{name}")
        say(f"  {name:{longest}}  {'does not occur' if iou is None else f'{iou:.4f}'}")
    return {
        "teacher": str(weights), "gflops": cost.gflops, "params_m": cost.params_m, "images": len(store.split("val")),
        "size": list(store.size), "metrics": metrics,
    }  # fmt: skip


def cache_teacher(space: SearchSpace, folder: RunFolder, say: Say) -> list[dict[str, Any]]:
    """Write the cache that the space's trials read, its teacher first where that is not there; say what it loses.

    Several of these commands at once share the work. With `teacher.cache: off` it is that of `taps`.
    """
    config, store = _opened(space, folder)
    weights = teacher_weights(config, store, folder, say)
    trials = [_wanting_a_cache(sample.trial) for _, sample in space.corners()]
    planned = plan_cache(trials, store, folder.teacher_maps, weights)
    if planned.plan is None:
        raise UserError(planned.why or f"no trial of {space.name} has a term that reads a teacher: add one to distill.")
    say(planned.why)
    resources = Resources(store.path, weights, device(), maps_plan=planned.plan, say=say)
    written: dict[Path, dict[str, Any]] = {}
    for trial in trials:
        if trial.teacher is None:
            continue
        started = time.monotonic()
        maps = resources.teacher_maps(trial, planned.plan.maps, planned.plan.next_frames)
        assert maps is not None
        if maps.path in written:
            continue
        written[maps.path] = {"path": str(maps.path), "bytes": maps.nbytes, "errors": dict(maps.errors)}
        say(f"{maps.path}: {maps.nbytes / 1e6:.1f} MB, {time.monotonic() - started:.1f} s")
        for name in planned.plan.maps:
            form, error = maps.forms[name], maps.errors[name]
            line = (
                f"  {name} {'x'.join(map(str, form.shape))} {form.kind}: {form.nbytes / 1e6:.3f} MB an image, error "
                f"rms {error['rms_error']:.2g} ({error['relative_error']:.2%}), max {error['max_error']:.2g}"
            )
            if "kl" in error:
                line += f", KL {error['kl']:.2g} nats a pixel, {error['classes_changed']:.3%} of pixels change class"
            say(line)
    return list(written.values())


def _opened(space: SearchSpace, folder: RunFolder) -> tuple[TrialConfig, Store]:
    config = space.default().trial
    if config.teacher is None:
        raise UserError(f"the space {space.name} has no teacher: add a `teacher` section.")
    return config, build_store(config.data, folder.stores)


def _existing_weights(config: TrialConfig, store: Store, folder: RunFolder, space: SearchSpace) -> Path:
    assert config.teacher is not None
    if config.teacher.checkpoint is not None:
        return models.checkpoint_file(config.teacher.checkpoint, config.teacher.network())
    weights = teacher_folder(config, store, folder.teachers) / "model.safetensors"
    if not weights.exists():
        raise UserError(
            f"the teacher of {space.name} is not trained yet ({weights} is missing); run `kdsearch teacher train` with "
            "the same space and options, or give the --storage in which it was trained."
        )
    return weights


def _wanting_a_cache(config: TrialConfig) -> TrialConfig:
    if config.teacher is None or config.teacher.cache != "off":
        return config
    return config.model_copy(update={"teacher": config.teacher.model_copy(update={"cache": "taps"})})
