"""Actions on the teacher of a space: `kdsearch teacher train|evaluate|cache SPACE`. One process, no Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdsearch.config.space.search_space import SearchSpace
from kdsearch.config.trial import TrialConfig
from kdsearch.data.registry import open_reader
from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.models.checkpoint import checkpoint_file
from kdsearch.models.cost import network_cost
from kdsearch.models.weights import load_network
from kdsearch.train.requirements import check_trial, check_weights
from kdsearch.train.resources import Resources
from kdsearch.train.standalone import device, opened_store, teacher_weights
from kdsearch.train.teacher import teacher_folder, teacher_trial
from kdsearch.train.teacher_cache.plan import plan_cache
from kdsearch.train.trial import Trial

Log = Callable[[str], None]


def train_teacher(space: SearchSpace, folder: RunFolder, log: Log) -> dict[str, Any]:
    """Train the space's teacher unless it exists, and log the path of its weights."""
    teacher = space.default().trial.teacher
    if teacher is not None and teacher.checkpoint is not None:
        raise UserError(
            f"the teacher of {space.name} comes as a checkpoint, {teacher.checkpoint}; to train one, set "
            "teacher.checkpoint to null."
        )
    config, store = _opened(space, folder, log)
    is_new = not teacher_folder(config, store, folder.teachers).exists()
    weights = teacher_weights(config, store, folder, log)
    log(f"{'wrote' if is_new else 'exists already:'} {weights}")
    return {"teacher": str(weights), "trained": is_new}


def evaluate_teacher(space: SearchSpace, folder: RunFolder, log: Log) -> dict[str, Any]:
    """Log the teacher's cost, its mIoU and the IoU of each class over the whole validation split."""
    config, store = _opened(space, folder, log)
    weights = _existing_weights(config, store, folder, space)
    alone = teacher_trial(config)
    cost = network_cost(alone.student, store.info, config.data.size)
    trial = Trial(alone, Resources(store.path, device=device()))
    load_network(trial.module.student, weights)
    metrics = trial.validate()
    height, width = store.size
    log(
        f"{weights}\n{alone.student.arch} {alone.student.encoder}, {cost.gflops:.2f} GFLOPs, {cost.params_m:.2f} M "
        f"parameters, on {len(store.split('val'))} images of {height}x{width}"
    )
    log(f"mIoU            {metrics['val/miou']:.4f}\npixel accuracy  {metrics['val/pixel_accuracy']:.4f}")
    longest = max(map(len, store.info.classes))
    for name in store.info.classes:
        iou = metrics.get(f"val/iou/{name}")
        log(f"  {name:{longest}}  {'does not occur' if iou is None else f'{iou:.4f}'}")
    return {
        "teacher": str(weights), "gflops": cost.gflops, "params_m": cost.params_m, "images": len(store.split("val")),
        "size": list(store.size), "metrics": metrics,
    }  # fmt: skip


def cache_teacher(space: SearchSpace, folder: RunFolder, log: Log) -> list[dict[str, Any]]:
    """Write the cache that the space's trials read, after its teacher unless that exists; log its errors.

    Several of these commands at once share the work. `teacher.cache: off` is treated as `taps`.
    """
    config, store = _opened(space, folder, log)
    weights = teacher_weights(config, store, folder, log)
    trials = [_wanting_a_cache(sample.trial) for _, sample in space.corners()]
    planned = plan_cache(trials, store, folder.teacher_maps, weights)
    if planned.plan is None:
        raise UserError(planned.why or f"no trial of {space.name} has a term that reads a teacher: add one to distill.")
    log(planned.why)
    resources = Resources(store.path, weights, device(), cache_plan=planned.plan, log=log)
    written: dict[Path, dict[str, Any]] = {}
    for trial in trials:
        if trial.teacher is None:
            continue
        started = time.monotonic()
        cache = resources.teacher_cache(trial, planned.plan.maps, planned.plan.next_frames)
        assert cache is not None
        if cache.path in written:
            continue
        written[cache.path] = {"path": str(cache.path), "bytes": cache.nbytes, "errors": dict(cache.errors)}
        log(f"{cache.path}: {cache.nbytes / 1e6:.1f} MB, {time.monotonic() - started:.1f} s")
        for name in planned.plan.maps:
            codec, error = cache.codecs[name], cache.errors[name]
            line = (
                f"  {name} {'x'.join(map(str, codec.shape))} {codec.kind}: {codec.nbytes / 1e6:.3f} MB per image, "
                f"error rms {error['rms_error']:.2g} ({error['relative_error']:.2%}), max {error['max_error']:.2g}"
            )
            if "kl" in error:
                line += f", KL {error['kl']:.2g} nats per pixel, {error['classes_changed']:.3%} of pixels change class"
            log(line)
    return list(written.values())


def _opened(space: SearchSpace, folder: RunFolder, log: Log) -> tuple[TrialConfig, Store]:
    config = space.default().trial
    if config.teacher is None:
        raise UserError(f"the space {space.name} has no teacher: add a `teacher` section.")
    info = open_reader(config.data).info
    check_trial(config, info)
    check_weights(config, info)
    return config, opened_store(config, folder, log)


def _existing_weights(config: TrialConfig, store: Store, folder: RunFolder, space: SearchSpace) -> Path:
    assert config.teacher is not None
    if config.teacher.checkpoint is not None:
        return checkpoint_file(config.teacher.checkpoint, config.teacher.network())
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
