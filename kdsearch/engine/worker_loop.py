"""The loop in each process of a worker group: receive commands, train, save, reply."""

from __future__ import annotations

import errno
import itertools
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

from kdsearch.engine.messages import (
    Command,
    NotSaved,
    Progress,
    Reply,
    StartTrial,
    StopWorkers,
    TrainEpoch,
    TrialFailed,
    TrialJob,
)
from kdsearch.io.atomic import write_folder_atomically, write_folder_once

if TYPE_CHECKING:
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


def run_worker(config: dict[str, Any]) -> None:
    """The loop of every rank: receive a command, carry it out, reply, until `StopWorkers`."""
    from ray.train import get_context

    channel = config["channel"]
    rank, world_size = get_context().get_world_rank(), get_context().get_world_size()
    worker = _Worker(rank, world_size)
    ray.get(channel.join.remote(rank, ray.get_runtime_context().current_actor))
    for number in itertools.count():
        command: Command = ray.get(channel.receive.remote(number))
        if isinstance(command, StopWorkers):
            return
        reply = _reply(worker, command)
        if rank == 0 or (isinstance(reply, TrialFailed) and reply.group_stuck):
            ray.get(channel.reply.remote(reply))


def _reply(worker: _Worker, command: StartTrial | TrainEpoch) -> Reply:
    try:
        return worker.start(command.job) if isinstance(command, StartTrial) else worker.train_epoch()
    except CannotSaveError as error:
        traceback.print_exc()
        return NotSaved(str(error))
    except Exception as error:
        # One rank alone can reply and serve on. Of several, the others may wait for this one in a collective: the
        # group has to end, and Ray Train ends it.
        if worker.world_size > 1:
            raise
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        return NotSaved(reason) if full else TrialFailed(reason)


class _Worker:
    """One rank of a group: the current trial, and the resources that outlive it."""

    def __init__(self, rank: int, world_size: int) -> None:
        from ray.train.torch import get_device

        from kdsearch.compat import ensure_torchvision

        ensure_torchvision()
        import kdsearch.train.trial  # noqa: F401  takes seconds: part of the start of the group, not of the first trial

        self.rank, self.world_size = rank, world_size
        self.device = get_device()
        self.resources: Resources | None = None
        self.trial: Trial | None = None
        self.job: TrialJob | None = None
        self.metrics: dict[str, float] = {}

    def start(self, job: TrialJob) -> Reply:
        """Build the trial of `job` and load its checkpoint, where one exists."""
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
        self.metrics = {}
        if Path(job.checkpoint).exists():
            self.metrics = self.trial.load(Path(job.checkpoint))
        return self._progress()

    def _resources_for(self, job: TrialJob) -> Resources:
        from kdsearch.train.resources import Resources
        from kdsearch.train.teacher_cache.plan import CachePlan

        teacher = Path(job.teacher_weights) if job.teacher_weights else None
        plan = None if job.cache_plan is None else CachePlan.from_json(job.cache_plan)
        if self.resources is None or self.resources.store_path != Path(job.store):
            self.resources = Resources(Path(job.store), None, self.device, self.rank, self.world_size)
        self.resources.teacher_weights, self.resources.cache_plan = teacher, plan
        self.resources.log = partial(_append, job.log, job.id)
        return self.resources

    def train_epoch(self) -> Reply:
        """Train and validate one epoch and save the state."""
        from kdsearch.train.trial import DoesNotFitError, TrialError

        assert self.trial is not None
        assert self.job is not None
        try:
            self.metrics = self.trial.train_epoch() | self.trial.validate()
        except TrialError as error:
            unfit = isinstance(error, DoesNotFitError)
            # A full device is one rank's own; the others still wait for this one, and do so until they are killed.
            return TrialFailed(str(error), infeasible=unfit, group_stuck=unfit and self.world_size > 1)
        if self.rank == 0:
            checkpoint = Path(self.job.checkpoint)
            with _saving(checkpoint):
                self.trial.save(checkpoint, self.metrics)
        return self._progress()

    def _progress(self) -> Progress:
        """The epoch of the trial and its metrics; a trial at its last epoch is written out as a student first."""
        assert self.trial is not None
        assert self.job is not None
        trial, metrics = self.trial, self.metrics
        if trial.epoch == trial.config.train.epochs and self.rank == 0:
            output = Path(self.job.output)
            # Workers of other studies may be reading the teacher: the one that is there stays.
            put = write_folder_once if self.job.id == "teacher" else write_folder_atomically
            with _saving(output):
                put(output, lambda folder: trial.save_student(folder, metrics))
        return Progress(trial.epoch, metrics)


def _append(log: str, job: str, line: str) -> None:
    """Add a line to the study's log, or print it where there is none: what workers print stays with Ray."""
    if not log:
        print(line, flush=True)
        return
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%H:%M:%S')} {job}: {line}\n")
