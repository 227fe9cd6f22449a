"""What runs in each process of a worker group: take commands, train, save, reply."""

from __future__ import annotations

import errno
import os
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from kdsearch.io.atomic import write_folder_atomically

if TYPE_CHECKING:
    from kdsearch.engine.worker_group import TrialJob
    from kdsearch.train.resources import Resources
    from kdsearch.train.trial import Trial


class CannotSaveError(RuntimeError):
    """What a trial has reached cannot be written. The message names the folder."""


@contextmanager
def _saving(path: Path) -> Iterator[None]:
    """Whatever goes wrong while `path` is written is the disk's fault: torch and safetensors have their own errors."""
    try:
        yield
    except Exception as error:
        free = shutil.disk_usage(next(folder for folder in path.parents if folder.exists())).free
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CannotSaveError(
            f"{path.name} could not be written to {path.parent}, where {free / 1e6:.0f} MB are free: {reason}"
        ) from error


def serve(config: dict[str, Any]) -> None:
    """What every rank runs: take commands until told to stop."""
    from ray.train import get_context

    mailbox = config["mailbox"]
    rank, world_size = get_context().get_world_rank(), get_context().get_world_size()
    trainer = _Rank(rank, world_size)
    ray.get(mailbox.join.remote(rank, ray.get_runtime_context().current_actor))
    for number in range(10**9):
        command = ray.get(mailbox.receive.remote(number))
        if command["do"] == "stop":
            return
        try:
            reply = trainer.start(command["job"]) if command["do"] == "start" else trainer.epoch()
        except CannotSaveError as error:
            traceback.print_exc()
            reply = {"broken": str(error)}
        except Exception as error:
            # One rank alone can report and serve on. Of several, the others may wait for this one in a collective:
            # the group has to end, and Ray Train ends it.
            if world_size > 1:
                raise
            traceback.print_exc()
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            reply = {"broken" if full else "failed": f"{type(error).__name__}: {error}"}
        if rank == 0 or reply.get("alone"):
            ray.get(mailbox.reply.remote(reply))


class _Rank:
    """One rank of a group: the trial in hand, and what outlives it."""

    def __init__(self, rank: int, world_size: int) -> None:
        from ray.train.torch import get_device

        from kdsearch.compat import ensure_torchvision

        ensure_torchvision()
        import kdsearch.train.trial  # noqa: F401  takes seconds: part of coming up, not of the first trial

        self.rank, self.world_size = rank, world_size
        self.device = get_device()
        self.resources: Resources | None = None
        self.trial: Trial | None = None
        self.job: TrialJob | None = None

    def start(self, job: TrialJob) -> dict[str, Any]:
        import torch

        from kdsearch import plugins
        from kdsearch.config.trial import TrialConfig
        from kdsearch.train.trial import Trial

        os.environ[plugins.VARIABLE] = job.plugins
        self.trial = None  # frees the previous student and its optimiser before the next is built
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        else:
            torch.set_num_threads(job.threads)
        self.job = job
        self.resources = self._resources_for(job)
        self.trial = Trial(TrialConfig.model_validate_json(job.config), self.resources)
        self.metrics: dict[str, float] = {}
        if Path(job.checkpoint).exists():
            self.metrics = self.trial.load(Path(job.checkpoint))
        return self._report()

    def _resources_for(self, job: TrialJob) -> Resources:
        from kdsearch.train.resources import Resources
        from kdsearch.train.teacher_cache.plan import CachePlan

        teacher = Path(job.teacher_weights) if job.teacher_weights else None
        plan = None if job.maps_plan is None else CachePlan.from_json(job.maps_plan)
        if self.resources is None or self.resources.store_path != Path(job.store):
            self.resources = Resources(Path(job.store), None, self.device, self.rank, self.world_size)
        self.resources.teacher_weights, self.resources.maps_plan = teacher, plan
        self.resources.say = partial(_append, job.log, job.id)
        return self.resources

    def epoch(self) -> dict[str, Any]:
        """Train and validate one epoch and save the state."""
        from kdsearch.train.trial import DoesNotFitError, TrialError

        assert self.trial is not None
        assert self.job is not None
        try:
            self.metrics = self.trial.train_epoch() | self.trial.validate()
        except TrialError as error:
            unfit = isinstance(error, DoesNotFitError)
            # A full device is one rank's own; the others still wait for this one, and do so until they are killed.
            return {"failed": str(error), "infeasible": unfit, "alone": unfit and self.world_size > 1}
        if self.rank == 0:
            checkpoint = Path(self.job.checkpoint)
            with _saving(checkpoint):
                self.trial.save(checkpoint, self.metrics)
        return self._report()

    def _report(self) -> dict[str, Any]:
        """Where the trial stands; a trial at its end is written out as a student first."""
        assert self.trial is not None
        assert self.job is not None
        trial, metrics = self.trial, self.metrics
        if trial.epoch == trial.config.train.epochs and self.rank == 0:
            from kdsearch.models.student import save_student

            output = Path(self.job.output)
            with _saving(output):
                write_folder_atomically(output, lambda folder: save_student(folder, trial, metrics))
        return {"epoch": trial.epoch, "metrics": metrics}


def _append(log: str, job: str, line: str) -> None:
    """Add a line to the study's log, or print it where there is none: what workers print stays with Ray."""
    if not log:
        print(line, flush=True)
        return
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%H:%M:%S')} {job}: {line}\n")
