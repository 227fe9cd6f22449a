"""One trial, start to end: a student, its teacher, the terms between them, and epochs of training."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from kdsearch.config.trial import TrialConfig
from kdsearch.data.loader import Batch, Batches
from kdsearch.distill.base import Shapes
from kdsearch.distill.registry import build_terms
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_atomically
from kdsearch.io.state_dict import load_plain
from kdsearch.models.cost import tap_shapes
from kdsearch.models.registry import build_network
from kdsearch.models.seg_output import SegOutput
from kdsearch.models.student import save_student
from kdsearch.train.adversaries import Adversaries
from kdsearch.train.distillation import Distillation, both_frames, data_parallel
from kdsearch.train.evaluation.in_training import evaluate
from kdsearch.train.frame_source import frame_source
from kdsearch.train.losses import SupervisedLoss
from kdsearch.train.memory import (
    DoesNotFitError,
    TrialError,
    bytes_of_others,
    estimated_bytes,
    held_by,
    is_out_of_memory,
    release,
    within_memory,
)
from kdsearch.train.resources import Resources
from kdsearch.train.teacher_cache.plan import needed_maps
from kdsearch.train.teacher_cache.reader import CachedTeacher


class Trial:
    """Trains `config.student`, alone or under `config.teacher`.

    **Teacher.** Either `teacher`, a network that runs at every step, or `cached`, which reads its maps from the teacher
    cache if `config.teacher.cache` allows it and the cache holds every map that the terms read. The other is None.

    **Resuming.** n epochs, saving, loading and m epochs equal n + m epochs, bit for bit on CPU: all random numbers
    derive from (seed, epoch). The learning-rate schedule spans the full horizon, whatever stops the trial.

    **Ranks.** Any number of ranks trains on the same global batches, `train.batch_size` images per step, in the same
    views and with the same gradient of the supervised losses. The number of ranks affects terms that compare images of
    a batch with each other (they see those of one rank), terms that are means over valid pixels (ranks weigh alike),
    and batch statistics on CPUs (those of one rank; on GPUs, of all).

    **Errors.** `TrialError` for a loss that is not finite, `DoesNotFitError` where building, loading, a step or
    validation exceeds device memory. Every other exception is a fault of the machine, or of the code.
    """

    def __init__(self, config: TrialConfig, resources: Resources) -> None:
        self.config = config
        self.resources = resources
        self.device = resources.device
        self.epoch = 0
        self.micro_batches = 1
        with within_memory("building the trial", self.device):
            self._build()

    def _build(self) -> None:
        config, resources = self.config, self.resources
        torch.manual_seed(config.train.seed)
        info, split = resources.store.info, resources.store.split("train")
        student = build_network(config.student, info, config.data.size)
        size = config.data.crop or config.data.size
        shapes = tap_shapes(config.student, info, size)
        teacher_shapes = {}
        if config.teacher is not None:
            teacher_shapes = tap_shapes(config.teacher.network(), info, size)
        supervised = SupervisedLoss(config.train, split, shapes)
        terms = build_terms(config.distill, shapes, teacher_shapes, info)
        self.module = Distillation(student, supervised, terms).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.wrapped: nn.Module = self.module
        if resources.world_size > 1:
            self.wrapped = data_parallel(self.module, self.device)
        later = frame_source(config.data, info) if terms.requirements.video else None
        self.cached = self._cached_teacher(teacher_shapes, later == "video") if config.distill else None
        self.teacher = resources.teacher(config) if config.distill and self.cached is None else None
        self.train_batches, self.val_batches = (
            Batches(
                resources.store.split(name), info, config.data, config.train.batch_size, config.train.seed,
                resources.rank, resources.world_size, self.device, frames,
            )
            for name, frames in (
                ("train", later),
                ("val", "video" if config.data.consistency else None),
            )
        )  # fmt: skip
        self.optimizer = self._optimizer()
        self.adversaries = Adversaries(terms)
        self.term_parameters = [parameter for parameter in terms.parameters() if parameter.requires_grad]
        self.steps = self.train_batches.steps_per_epoch

    # ---- training ------------------------------------------------------------------------------------------------

    def train_epoch(self, on_step: Callable[[], None] | None = None) -> dict[str, float]:
        """Train one epoch; mean losses as `loss/...`, gradient ratios as `grad_ratio/...`, times as `time/...`.

        `on_step` is called after each step.
        """
        started = time.monotonic()
        torch.manual_seed(_mix(self.config.train.seed, self.epoch, self.resources.rank))
        self.wrapped.train()
        history: dict[str, list[Tensor]] = {}
        images = 0
        metrics: dict[str, float] = {}
        for step, batch in enumerate(self.train_batches.train(self.epoch)):
            self._set_learning_rate(self.epoch * self.steps + step)
            for name, value in self._step(batch, metrics if step == 0 else None).items():
                history.setdefault(name, []).append(value)
            images += len(batch.image_bchw)
            if on_step is not None:
                on_step()
        losses_ns = torch.stack([torch.stack(values) for values in history.values()]).double()
        if self.resources.world_size > 1:
            # All ranks must agree on whether the trial continues; a NaN on one rank makes the mean NaN.
            torch.distributed.all_reduce(losses_ns)
            losses_ns /= self.resources.world_size
            if metrics:
                ratios_n = torch.tensor(list(metrics.values()), dtype=torch.float64, device=self.device)
                torch.distributed.all_reduce(ratios_n)
                metrics = dict(zip(metrics, (ratios_n / self.resources.world_size).tolist(), strict=True))
        self._check_finite(list(history), losses_ns)
        self.epoch += 1
        metrics |= {f"loss/{name}": mean for name, mean in zip(history, losses_ns.mean(1).tolist(), strict=True)}
        metrics["lr"] = self.optimizer.param_groups[0]["lr"]
        metrics["time/train_s"] = time.monotonic() - started
        metrics["time/images_per_s"] = images * self.resources.world_size / metrics["time/train_s"]
        return metrics

    def _step(self, batch: Batch, diagnose: dict[str, float] | None) -> dict[str, Tensor]:
        """One optimiser step. Out of memory, it is retried once with twice as many micro-batches of half the size."""
        losses = self._try_forward_backward(batch, diagnose)
        # The other ranks cannot know about a retry, and would wait for this rank's gradients for ever.
        if losses is None and self.resources.world_size == self.micro_batches == 1 and len(batch.image_bchw) > 1:
            self.micro_batches = 2
            losses = self._try_forward_backward(batch, None)
        if losses is None:
            others = bytes_of_others(self.device)
            raise DoesNotFitError(self._memory_message() + held_by(others), others)
        if self.term_parameters:
            nn.utils.clip_grad_norm_(self.term_parameters, self.config.train.terms_grad_clip)
        self.optimizer.step()
        self.adversaries.step(self.resources.world_size)
        return losses

    def _try_forward_backward(self, batch: Batch, diagnose: dict[str, float] | None) -> dict[str, Tensor] | None:
        """The losses, with their gradients computed; None, and the memory of the attempt freed, on a full device."""
        try:
            return self._forward_backward(batch, diagnose)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler: until its end the error's traceback keeps the graph of the attempt alive.
        self.optimizer.zero_grad(set_to_none=True)
        self.adversaries.zero_grad()
        release(self.device)
        return None

    def _memory_message(self) -> str:
        needed = estimated_bytes(self.module.terms.terms, self.train_batches.local_size)
        text = f"out of device memory at batch size {self.config.train.batch_size}"
        if not needed:
            return text
        largest = max(needed, key=lambda name: needed[name])
        return f"{text}; of the terms, {largest} needs most, about {needed[largest] / 1e9:.2f} GB"

    def _forward_backward(self, batch: Batch, diagnose: dict[str, float] | None) -> dict[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        self.adversaries.zero_grad()
        totals: dict[str, Tensor] = {}
        bf16 = self.config.train.precision == "bf16"
        norms_3 = self._norms(batch)
        for micro in batch.tensor_split(self.micro_batches):
            share = len(micro.image_bchw) / len(batch.image_bchw)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                teacher = self.teacher_output(micro)
                task, weighted, ratios = self.wrapped(
                    micro,
                    teacher,
                    self.epoch,
                    self.config.train.epochs,
                    None if norms_3 is None else norms_3 * share,
                    diagnose is not None,
                )
            total = task + sum(weighted.values(), torch.zeros((), device=self.device))
            if diagnose is not None:
                diagnose |= {f"grad_ratio/{name}": ratio for name, ratio in ratios.items()}
            (total * share).backward()
            adversarial = self.adversaries.backward(share)
            for name, value in {"task": task, **weighted, "total": total, **adversarial}.items():
                totals[name] = totals.get(name, torch.zeros((), device=self.device)) + value.detach() * share
        return totals

    def _norms(self, batch: Batch) -> Tensor | None:
        """The divisors of the supervised losses, which keep them independent of how a global batch is split.

        None for a batch in one piece, whose divisors the loss computes itself.
        """
        if self.resources.world_size == self.micro_batches == 1:
            return None
        norms_3: Tensor = self.module.supervised.norms(batch.label_bhw)
        if self.resources.world_size > 1:
            torch.distributed.all_reduce(norms_3)
            norms_3 /= self.resources.world_size  # DDP takes the mean of the ranks' gradients
        return norms_3

    def _cached_teacher(self, shapes: Shapes, next_frames: bool) -> CachedTeacher | None:
        needed = needed_maps(self.module.terms.requirements)
        cache = self.resources.teacher_cache(self.config, needed, next_frames)
        return None if cache is None else CachedTeacher(cache, {name: shapes[name] for name in needed}, self.device)

    def teacher_output(self, batch: Batch) -> SegOutput | None:
        """The output of the live or the cached teacher for a batch; with later frames, of both frames in sequence.

        A cached teacher returns the maps that the terms read, and no others.
        """
        if self.cached is not None:
            return self.cached(batch)
        if self.teacher is None:
            return None
        self.teacher.detail_taps = self.module.terms.requirements.detail_heads
        with torch.no_grad():
            output: SegOutput = self.teacher(both_frames(batch))
        return output

    def _check_finite(self, names: list[str], losses_ns: Tensor) -> None:
        """Raise for the first step and loss that is not finite. Checked once per epoch, so that steps never wait."""
        bad_ns = ~losses_ns.isfinite()
        if bad_ns.any():
            step = int(bad_ns.any(0).nonzero()[0])
            name = names[int(bad_ns[:, step].nonzero()[0])]
            raise TrialError(f"loss/{name} is not finite at step {step + 1} of epoch {self.epoch + 1}")

    # ---- validation ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The metrics of `evaluate` on the validation split, and the time that it took. `TrialError` without a mIoU."""
        started = time.monotonic()
        student = self.module.student
        if self.resources.world_size > 1:
            for buffer in student.buffers():
                torch.distributed.broadcast(buffer, 0)  # batch statistics differ by rank; those of rank 0 are saved
        with within_memory("validating", self.device):
            metrics = evaluate(student, self.val_batches, self.resources.store.info, self.config)
        if "val/miou" not in metrics:
            raise TrialError("no pixel of the validation split has a label, so there is no mIoU")
        metrics["time/val_s"] = time.monotonic() - started
        return metrics

    # ---- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume: tensors and plain numbers only, so that it loads with `weights_only`."""
        return {
            "epoch": self.epoch,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "opponents": self.adversaries.state_dict(),
            "micro_batches": self.micro_batches,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.adversaries.load_state_dict(state["opponents"])
        self.micro_batches = state["micro_batches"]

    def save(self, path: Path, metrics: dict[str, float]) -> None:
        """Write the state and the last epoch's metrics to `path`, atomically."""
        state = self.state_dict() | {"metrics": metrics}
        write_atomically(path, lambda partial: torch.save(state, partial))

    def load(self, path: Path) -> dict[str, float]:
        """Load a file of `save` and return its metrics. `TrialError` for a file with anything but plain values."""
        with within_memory("loading the checkpoint", self.device):
            try:
                state = load_plain(path, self.device)
            except UserError as error:
                if isinstance(error.__cause__, OSError | torch.OutOfMemoryError):
                    raise error.__cause__ from None  # of the disk or the device: the file may be sound
                raise TrialError(f"the checkpoint {path} cannot be read; delete it and resume: {error}") from error
            try:
                self.load_state_dict(state)
            except (RuntimeError, ValueError, KeyError) as error:
                if is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0]
                raise TrialError(
                    f"the checkpoint {path} is of another network; delete it and resume: {reason}"
                ) from error
        metrics: dict[str, float] = state["metrics"]
        return metrics

    def save_student(self, folder: Path, metrics: dict[str, float]) -> None:
        """Write the student, without terms and adapters, into `folder`."""
        store = self.resources.store
        save_student(folder, self.module.student, self.config, store.info, store.size, metrics)

    # ---- optimiser -----------------------------------------------------------------------------------------------

    def _optimizer(self) -> torch.optim.Optimizer:
        train = self.config.train
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        if train.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=train.lr, momentum=0.9, weight_decay=train.weight_decay)
        return torch.optim.AdamW(parameters, lr=train.lr, weight_decay=train.weight_decay)

    def _set_learning_rate(self, step: int) -> None:
        horizon = self.steps * self.config.train.epochs
        lr = self.config.train.lr * (1 - step / horizon) ** self.config.train.poly_power
        for group in self.optimizer.param_groups:
            group["lr"] = lr


def _mix(seed: int, epoch: int, rank: int) -> int:
    """One seed from three numbers (splitmix64's constants), so that neighbours share nothing."""
    mixed = (seed * 0x9E3779B97F4A7C15 + epoch * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB) % 2**64
    return (mixed ^ (mixed >> 31)) % 2**63
