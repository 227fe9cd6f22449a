"""A few steps of a trial, timed part by part on random images: their time does not depend on pixels."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdsearch.config.networks import without_weights
from kdsearch.config.trial import TrialConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.data.reader import Sample
from kdsearch.data.store.build import write_store
from kdsearch.data.store.file_digests import FileDigests
from kdsearch.data.store.store import Store
from kdsearch.distill.base import FramePair, Term
from kdsearch.models.registry import build_network
from kdsearch.models.seg_output import SegOutput
from kdsearch.train.distillation import both_frames, by_frame
from kdsearch.train.memory import estimated_bytes
from kdsearch.train.resources import Resources
from kdsearch.train.trial import Trial

REPEATS = 5
ENOUGH_S = 2.0
"""A part is timed at most `REPEATS` times, within `ENOUGH_S` seconds; a longer one is timed once."""


@dataclass
class Measurement:
    """Seconds per image on one rank, and bytes for `batch` images per step; the timed steps had `images`.

    `alone` is a step without distillation: data, student, optimiser. `whole` is a step with it; `rest` its part beside
    `alone`, the teacher and the terms (the student's second frames, discriminators). `waiting` is the ratio of wall
    time to computing time of the measurement.
    """

    images: int
    alone: float
    val: float
    whole: float
    teacher: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    waiting: float = 1.0

    @property
    def rest(self) -> float:
        return max(0.0, self.whole - self.alone - self.teacher - sum(self.terms.values()))


class RandomReader:
    """A data set of noise in the shape of another one, with labels in blocks that cover all classes."""

    BLOCK = 32

    def __init__(self, info: DatasetInfo, size: tuple[int, int], count: int) -> None:
        self.info, self.size, self.count = info, size, count

    def keys(self, split: str) -> list[str]:
        return [f"{split}-{index}" for index in range(self.count)]

    def read(self, split: str, key: str) -> Sample:
        height, width = self.size
        rng = np.random.default_rng([len(split), int(key.rpartition("-")[2])])
        blocks = rng.integers(0, self.info.num_classes, (-(-height // self.BLOCK), -(-width // self.BLOCK)))
        label = np.kron(blocks, np.ones((self.BLOCK, self.BLOCK), int))[:height, :width].astype(np.uint8)
        image = rng.integers(0, 256, (height, width, self.info.channels), dtype=np.uint8)
        if not self.info.video:
            return Sample(image, label)
        return Sample(image, label, image, np.zeros((height, width, 2), np.float32))

    def files(self, split: str, key: str) -> list[Path]:
        return []

    def rules(self) -> dict[str, object]:
        return {"random": self.count}


def random_store(folder: Path, info: DatasetInfo, size: tuple[int, int], count: int) -> Store:
    """A store of `count` random images per split."""
    digests = FileDigests(folder.parent, RandomReader(info, size, count), "random")
    return Store.open(write_store(folder.parent, folder.name, digests, size))


def measurable(config: TrialConfig, images: int) -> TrialConfig:
    """The trial with random weights, without a teacher cache, and with `images` per step."""
    changes: dict[str, object] = {
        "student": without_weights(config.student),
        "train": config.train.model_copy(update={"batch_size": images}),
    }
    if config.teacher is not None:
        bare = without_weights(config.teacher)
        network = {name: getattr(bare, name) for name in type(bare).model_fields}
        live = {"checkpoint": None, "cache": "off", "cache_format": "fp16", "cache_top_k": 0}
        changes["teacher"] = config.teacher.model_copy(update=network | live)
    return config.model_copy(update=changes)


def measure(
    config: TrialConfig,
    store: Path,
    scratch: Path,
    images: int,
    batch: int,
    device: torch.device,
    say: Callable[[str], None],
) -> Measurement:
    """The time of each part of a step of `images`, and the memory of a step of `batch`.

    `say` receives the name of each part before it is timed. Weights of a random teacher are written to `scratch`.
    """
    began, computed = time.perf_counter(), time.process_time()
    config = measurable(config, images)
    alone = config.model_copy(update={"teacher": None, "distill": {}})
    say("the student alone")
    trial = Trial(alone, Resources(store, None, device))
    steps = trial.train_batches.train(0)
    first = next(steps)
    data = _seconds(lambda: next(trial.train_batches.train(0)), device)
    step = _seconds(lambda: trial._step(first, None), device)
    measured = Measurement(images, alone=(data + step) / images, val=0.0, whole=(data + step) / images)
    say("validation")
    measured.val = _seconds(trial.validate, device) / len(trial.val_batches.split)
    say("the student's memory")
    activations = _saved_bytes(trial, first) // images * batch
    if config.distill:
        _measure_distilled(measured, config, store, scratch, data, device, batch, say)
    trained = sum(p.numel() * p.element_size() for p in trial.module.parameters())
    slots = 1 if config.train.optimizer == "sgd" else 2
    measured.memory |= {"student": trained * (2 + slots), "activations": activations}
    if device.type == "cpu":
        measured.waiting = (time.perf_counter() - began) / max(1e-3, time.process_time() - computed)
    return measured


def _measure_distilled(
    measured: Measurement, config: TrialConfig, store: Path, scratch: Path, data: float, device: torch.device,
    batch: int, say: Callable[[str], None],
) -> None:  # fmt: skip
    images = measured.images
    trial = Trial(config, Resources(store, _random_teacher(config, Store.open(store).info, scratch), device))
    first = next(trial.train_batches.train(0))
    say("the teacher")
    measured.teacher = _seconds(lambda: trial.teacher_output(first), device) / images
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16"):
        student, teacher = trial.module.student(both_frames(first)), trial.teacher_output(first)
    assert teacher is not None
    outputs = by_frame(first, student, teacher)
    for name, term in trial.module.terms.terms.items():
        say(f"the term {name}")
        measured.terms[name] = _seconds(partial(_term_step, term, outputs, first.label_bhw), device) / images
    say("a whole step")
    measured.whole = (data + _seconds(lambda: trial._step(first, None), device)) / images
    term_parameters = sum(p.numel() * p.element_size() for p in trial.module.terms.parameters())
    assert trial.teacher is not None
    maps = sum(each.numel() * each.element_size() for each in (teacher.logits, *teacher.taps.values()))
    measured.memory = {
        "terms' own": 4 * term_parameters,
        "teacher": sum(p.numel() * p.element_size() for p in trial.teacher.parameters()) + maps // images * batch,
        **estimated_bytes(trial.module.terms.terms, batch),
    }


def _random_teacher(config: TrialConfig, info: DatasetInfo, scratch: Path) -> Path:
    from safetensors.torch import save_file

    assert config.teacher is not None
    path = scratch / "teacher.safetensors"
    if not path.exists():
        network = build_network(config.teacher.network(), info, config.data.size)
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return path


def _term_step(term: Term, outputs: tuple[SegOutput, SegOutput | None, FramePair | None], target_bhw: Tensor) -> None:
    """Forward and backward pass of one term, to the student's maps and the term's own parameters."""
    student, teacher, frames = outputs
    assert teacher is not None
    if frames is not None:
        frames = FramePair(_leaves(frames.student), frames.teacher, frames.flow_b2hw, frames.image_bchw,
                           frames.next_image_bchw)  # fmt: skip
    term(_leaves(student), teacher, target_bhw, frames).backward()


def _leaves(output: SegOutput) -> SegOutput:
    taps = {name: tap.detach().requires_grad_() for name, tap in output.taps.items()}
    return SegOutput(output.logits.detach().requires_grad_(), taps, output.inside_bhw)


def _saved_bytes(trial: Trial, batch: object) -> int:
    """Bytes that a forward pass of the student saves for the backward pass, without parameters."""
    own = {p.untyped_storage().data_ptr() for p in trial.module.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    bf16 = trial.config.train.precision == "bf16"
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast(trial.device.type, torch.bfloat16, enabled=bf16),
    ):
        trial.module(batch, None, 0, trial.config.train.epochs)
    return sum(saved.values())


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Median seconds of a few runs after one of warm-up, or of a single long run. On a CPU, computing time."""

    def once() -> float:
        if device.type == "cuda":
            started = time.perf_counter()
            run()
            torch.cuda.synchronize()
            return time.perf_counter() - started
        # Computing time of this process: the load of others would not be there in the study.
        started = time.process_time()
        run()
        return time.process_time() - started

    seconds, end = [once()], time.perf_counter() + ENOUGH_S
    while time.perf_counter() < end and len(seconds) <= REPEATS:
        seconds.append(once())
    return statistics.median(seconds[1:] or seconds)
