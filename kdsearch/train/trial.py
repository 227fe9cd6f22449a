"""One trial, start to end: a student, its teacher, the terms between them, and epochs of training."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from kdsearch import models
from kdsearch.config.trial import TrialConfig
from kdsearch.data.loader import Batch, Batches
from kdsearch.distill.base import Shapes
from kdsearch.distill.registry import build_terms
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_atomically
from kdsearch.models.output import SegOutput, upsampled_classes
from kdsearch.models.weights import load_plain
from kdsearch.train.adversaries import Adversaries
from kdsearch.train.confusion import ConfusionMatrix, follow_flow
from kdsearch.train.distillation import Distillation, both_frames, data_parallel
from kdsearch.train.frame_source import frame_source
from kdsearch.train.losses import SupervisedLoss
from kdsearch.train.resources import Resources
from kdsearch.train.teacher_cache.plan import needed_maps
from kdsearch.train.teacher_cache.reader import CachedTeacher


class TrialError(RuntimeError):
    """The trial cannot go on, and would fail in the same way again: the message says where and why."""


class DoesNotFitError(TrialError):
    """A step needs more device memory than there is, even at half the micro-batch."""


class Trial:
    """Trains `config.student`, alone or under `config.teacher`.

    The teacher is the network `teacher`, asked at every step, or `cached`, its maps that were written before, where
    `config.teacher.cache` wants them and they hold all that the terms read; the other of the two is None.

    Training n epochs, saving, loading and training m more equals n + m at once, bit for bit on CPU: everything random
    is drawn from (seed, epoch). The learning-rate schedule spans the full horizon whatever stops the trial.

    Any number of ranks trains on the same global batches, `train.batch_size` images a step, in the same views, and with
    the same gradient of the supervised losses. What depends on the number of ranks: terms that compare images of a
    batch with each other see those of one rank, terms that are means over valid pixels weigh ranks alike, and on CPUs
    batch statistics are those of one rank (on GPUs of all).

    Raises `TrialError` when a loss is not finite, and `DoesNotFitError` when a step does not fit into device memory.
    """

    def __init__(self, config: TrialConfig, resources: Resources) -> None:
        self.config = config
        self.resources = resources
        self.device = resources.device
        self.epoch = 0
        torch.manual_seed(config.train.seed)
        info, split = resources.store.info, resources.store.split("train")
        student = models.build(config.student, info)
        size = config.data.crop or config.data.size
        shapes = models.tap_shapes(config.student, info, size)
        teacher_shapes = {}
        if config.teacher is not None:
            teacher_shapes = models.tap_shapes(config.teacher.network(), info, size)
        supervised = SupervisedLoss(config.train, split, shapes)
        terms = build_terms(config.distill, shapes, teacher_shapes, info)
        self.module = Distillation(student, supervised, terms).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.wrapped: nn.Module = self.module
        if resources.world_size > 1:
            self.wrapped = data_parallel(self.module, self.device)
        later = frame_source(config.data, info) if terms.needs.video else None
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
        self.opponents = Adversaries(terms)
        self.term_parameters = [parameter for parameter in terms.parameters() if parameter.requires_grad]
        self.steps = self.train_batches.steps_per_epoch
        self.micro_batches = 1

    # ---- training ------------------------------------------------------------------------------------------------

    def train_epoch(self) -> dict[str, float]:
        """Train one epoch; mean losses as `loss/...`, gradient ratios as `grad_ratio/...`, times as `time/...`."""
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
        losses_ns = torch.stack([torch.stack(values) for values in history.values()]).double()
        if self.resources.world_size > 1:
            # All ranks must agree on whether the trial goes on; a NaN on one is a NaN of the mean.
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
        """One optimiser step. On a full device it is tried once more in twice as many, half as large micro-batches."""
        try:
            losses = self._forward_backward(batch, diagnose)
        except torch.OutOfMemoryError as error:
            # Other ranks have no way to know, and would wait for this one's gradients for ever.
            if self.resources.world_size > 1 or self.micro_batches > 1 or len(batch.image_bchw) < 2:
                raise DoesNotFitError(self._why_it_does_not_fit()) from error
            self.micro_batches = 2
            torch.cuda.empty_cache()
            return self._step(batch, None)
        if self.term_parameters:
            nn.utils.clip_grad_norm_(self.term_parameters, self.config.train.terms_grad_clip)
        self.optimizer.step()
        self.opponents.step(self.resources.world_size)
        return losses

    def _why_it_does_not_fit(self) -> str:
        terms = self.module.terms.terms
        needed = {name: term.estimate_bytes(self.train_batches.local_size) / 1e9 for name, term in terms.items()}
        text = f"out of device memory at batch size {self.config.train.batch_size}"
        if not needed:
            return text
        largest = max(needed, key=lambda name: needed[name])
        return f"{text}; of the terms {largest} takes most, about {needed[largest]:.2f} GB"

    def _forward_backward(self, batch: Batch, diagnose: dict[str, float] | None) -> dict[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        self.opponents.zero_grad()
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
            opponents = self.opponents.backward(share)
            for name, value in {"task": task, **weighted, "total": total, **opponents}.items():
                totals[name] = totals.get(name, torch.zeros((), device=self.device)) + value.detach() * share
        return totals

    def _norms(self, batch: Batch) -> Tensor | None:
        """What the supervised losses are divided by, so that they do not depend on how a global batch is cut up.

        None where it is in one piece: then it is what the loss finds by itself.
        """
        if self.resources.world_size == self.micro_batches == 1:
            return None
        norms_3: Tensor = self.module.supervised.norms(batch.label_bhw)
        if self.resources.world_size > 1:
            torch.distributed.all_reduce(norms_3)
            norms_3 /= self.resources.world_size  # DDP takes the mean of the ranks' gradients
        return norms_3

    def _cached_teacher(self, shapes: Shapes, next_frames: bool) -> CachedTeacher | None:
        needed = needed_maps(self.module.terms.needs)
        maps = self.resources.teacher_maps(self.config, needed, next_frames)
        return None if maps is None else CachedTeacher(maps, {name: shapes[name] for name in needed}, self.device)

    def teacher_output(self, batch: Batch) -> SegOutput | None:
        """What the teacher, live or cached, says about a batch: of both frames, one after the other, where it has two.

        A cached one gives the maps that the terms read, and no others.
        """
        if self.cached is not None:
            return self.cached(batch)
        if self.teacher is None:
            return None
        self.teacher.detail_taps = self.module.terms.needs.detail_heads
        with torch.no_grad():
            output: SegOutput = self.teacher(both_frames(batch))
        return output

    def _check_finite(self, names: list[str], losses_ns: Tensor) -> None:
        """Raise for the first step and name whose loss is not finite. Checked once an epoch, so steps never wait."""
        bad_ns = ~losses_ns.isfinite()
        if bad_ns.any():
            step = int(bad_ns.any(0).nonzero()[0])
            name = names[int(bad_ns[:, step].nonzero()[0])]
            raise TrialError(f"loss/{name} is not finite at step {step + 1} of epoch {self.epoch + 1}")

    # ---- validation ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """mIoU over the whole validation split as `val/miou`, `val/iou/<class>`, `val/pixel_accuracy`.

        With `data.consistency` also `val/temporal_consistency`: mIoU between the prediction of each frame and that of
        its next frame, brought back along the flow; pixels that leave the frame and absent classes do not count.
        """
        started = time.monotonic()
        student = self.module.student.eval()
        student.detail_taps = False  # they serve training alone
        if self.resources.world_size > 1:
            for buffer in student.buffers():
                torch.distributed.broadcast(buffer, 0)  # each rank has batch statistics of its own; rank 0's are saved
        info = self.resources.store.info
        matrix, temporal = (ConfusionMatrix(info.num_classes, self.device) for _ in range(2))
        bf16 = self.config.train.precision == "bf16"

        def predict(image_bchw: Tensor) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                logits_bkhw = student(image_bchw).logits
            return upsampled_classes(logits_bkhw, image_bchw.shape[-2:])

        for batch in self.val_batches.val():
            classes_bhw = predict(batch.image_bchw)
            matrix.update(classes_bhw, batch.label_bhw)
            if batch.next_image_bchw is not None:
                assert batch.flow_b2hw is not None
                temporal.update(classes_bhw, follow_flow(predict(batch.next_image_bchw), batch.flow_b2hw))
        student.detail_taps = True
        matrix.reduce()
        metrics = {"val/miou": matrix.miou(), "val/pixel_accuracy": matrix.pixel_accuracy()}
        if self.config.data.consistency:
            temporal.reduce()
            metrics["val/temporal_consistency"] = temporal.miou()
        for name, iou in zip(info.classes, matrix.iou_k().tolist(), strict=True):
            if not math.isnan(iou):
                metrics[f"val/iou/{name}"] = iou
        metrics["time/val_s"] = time.monotonic() - started
        return metrics

    # ---- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on: tensors and plain numbers only, so that it loads with `weights_only`."""
        return {
            "epoch": self.epoch,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "opponents": self.opponents.state_dict(),
            "micro_batches": self.micro_batches,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.opponents.load_state_dict(state["opponents"])
        self.micro_batches = state["micro_batches"]

    def save(self, path: Path, metrics: dict[str, float]) -> None:
        """Write the state and the last epoch's metrics to `path`, whole or not at all."""
        state = self.state_dict() | {"metrics": metrics}
        write_atomically(path, lambda partial: torch.save(state, partial))

    def load(self, path: Path) -> dict[str, float]:
        """Load what `save` wrote; the metrics saved with it. `TrialError` for more than plain values."""
        try:
            state = load_plain(path, self.device)
        except UserError as error:
            raise TrialError(f"the checkpoint {path} cannot be read; delete it and resume: {error}") from error
        self.load_state_dict(state)
        metrics: dict[str, float] = state["metrics"]
        return metrics

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
