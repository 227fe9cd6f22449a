"""The loop in each process of a worker group: receive commands, train, save, reply."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from kdsearch.config.metrics import TOTAL_SECONDS
from kdsearch.engine.cluster import threads_here
from kdsearch.engine.messages import (
    AttemptEnded,
    Command,
    NotSaved,
    Progress,
    Reply,
    StartTrial,
    StopWorkers,
    TrainEpoch,
    TrialFailed,
    TrialJob,
    epoch_seconds,
)
from kdsearch.io.atomic import partial_path, write_folder_atomically, write_folder_once

if TYPE_CHECKING:
    from kdsearch.train.resources import Resources
    from kdsearch.train.trial import Trial


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk that has no room for a file."""
PROBE_BYTES = 2**24
REASON_CHARS = 500


class CannotSaveError(RuntimeError):
    """What a trial has reached cannot be written to `folder`. `full`: for want of room, which no other worker has."""

    def __init__(self, message: str, folder: Path, full: bool) -> None:
        super().__init__(message)
        self.folder, self.full = folder, full


@contextmanager
def _saving(path: Path) -> Iterator[None]:
    """Whatever goes wrong while `path` is written is the disk's fault: torch and safetensors have their own errors."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        number = error.errno if isinstance(error, OSError) else _errno_at(path)
        try:
            folder = next(folder for folder in path.parents if folder.exists())
            room = f", where {shutil.disk_usage(folder).free / 1e6:.0f} MB are free"
        except OSError:  # a stale mount
            room = ""
        message = f"{path.name} could not be written to {path.parent}{room}: {reason}"
        raise CannotSaveError(message, path.parent, number is None or number in FULL) from error


def _errno_at(path: Path) -> int | None:
    """Why a file cannot be written beside `path`, as the system numbers it; None where one can be."""
    probe = partial_path(path)
    try:
        probe.write_bytes(b"0" * PROBE_BYTES)
    except OSError as error:
        return error.errno
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return None


def run_worker(config: dict[str, Any]) -> None:
    """The loop of every rank: receive a command, carry it out, reply, until `StopWorkers`.

    An exception that is no verdict on a configuration ends the process: its device, its mounts or its libraries may be
    broken, and every later trial would fail by them.
    """
    from ray.train import get_context

    channel, ray_context = config["channel"], ray.get_runtime_context()
    rank, node = get_context().get_world_rank(), ray_context.get_node_id()
    ray.get(channel.join.remote(rank, ray_context.current_actor, node))
    try:
        worker = _Worker(rank, get_context().get_world_size(), get_context().get_local_world_size(), node)
    except Exception as error:
        ray.get(channel.reply.remote(_broken(error, node)))
        raise
    finally:
        ray.get(channel.ready.remote(rank))
    worker.whole_device = config["whole_device"]
    for number in itertools.count():
        command: Command = ray.get(channel.receive.remote(number))
        if isinstance(command, StopWorkers):
            return
        reply = carry_out(worker, command)
        ends = isinstance(reply, AttemptEnded | NotSaved)
        if rank == 0 or ends or (isinstance(reply, TrialFailed) and reply.group_stuck):
            ray.get(channel.reply.remote(reply))
        if ends and not (isinstance(reply, AttemptEnded) and reply.kind == "memory"):
            return


def carry_out(worker: _Worker, command: StartTrial | TrainEpoch) -> Reply:
    """The reply of one rank to a command, whatever goes wrong."""
    try:
        return worker.start(command.job) if isinstance(command, StartTrial) else worker.train_epoch()
    except CannotSaveError as error:
        traceback.print_exc()
        return NotSaved(str(error), error.full, str(error.folder), (worker.node,))
    except Exception as error:  # noqa: BLE001  whatever it is, the driver decides what becomes of the trial
        from kdsearch.train.memory import DoesNotFitError, TrialError

        if isinstance(error, DoesNotFitError):
            if error.others or not worker.whole_device:
                return AttemptEnded(str(error), "memory", (worker.node,))
            # A full device is one rank's own; the others still wait for this one, and do so until they are killed.
            return TrialFailed(str(error), infeasible=True, group_stuck=worker.world_size > 1)
        if isinstance(error, TrialError):
            # All ranks fail an epoch together, since they share its losses; one alone may fail to load a checkpoint.
            return TrialFailed(str(error), group_stuck=worker.world_size > 1 and isinstance(command, StartTrial))
        if isinstance(error, OSError) and error.errno in FULL:
            return NotSaved(f"{type(error).__name__}: {error}", nodes=(worker.node,))
        return _broken(error, worker.node)


def _broken(error: Exception, node: str) -> AttemptEnded:
    traceback.print_exception(error)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return AttemptEnded(reason[:REASON_CHARS], "error", (node,))


class _Worker:
    """One rank of a group: the current trial, and the resources that outlive it."""

    def __init__(self, rank: int, world_size: int, local_ranks: int, node: str) -> None:
        from ray.train.torch import get_device

        from kdsearch.compat import ensure_torchvision

        ensure_torchvision()
        import kdsearch.train.trial  # noqa: F401  takes seconds: part of the start of the group, not of the first trial

        self.rank, self.world_size, self.local_ranks, self.node = rank, world_size, local_ranks, node
        self.whole_device = True
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
        from kdsearch.train.memory import release
        from kdsearch.train.trial import Trial

        os.environ[plugins.VARIABLE] = job.plugins
        self.trial = None  # frees the previous student and its optimiser before the next is built
        release(self.device)
        if self.device.type == "cpu":
            torch.set_num_threads(threads_here(job.threads, self.local_ranks))
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
        assert self.trial is not None
        assert self.job is not None
        before = self.metrics.get(TOTAL_SECONDS, 0.0)
        metrics = self.trial.train_epoch() | self.trial.validate()
        self.metrics = metrics | {TOTAL_SECONDS: before + epoch_seconds(metrics)}
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
