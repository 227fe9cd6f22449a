"""Resident Ray Train workers: one worker group that trains trial after trial.

Starting a Ray Train run costs tens of seconds of process starts; a search of short trials would spend most of its time
there. Here a group is started once per slot and takes commands from a `Mailbox`: the group keeps its processes, open
data stores, loaded teacher and CUDA context, and between trials frees only the student and its optimiser.
"""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from kdsearch.run_folder import write_folder_atomically
from kdsearch.search.mailbox import Mailbox

if TYPE_CHECKING:
    from kdsearch.train.resources import Resources
    from kdsearch.train.trial import Trial


class WorkersDiedError(RuntimeError):
    """The worker group ended while it was still needed. The trial goes on from its checkpoint in a new group."""


@dataclass(frozen=True)
class Placement:
    """What one trial occupies: `workers` ranks, each with `cpus` and `gpus`."""

    workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True)
class Job:
    """One training for a worker group, as plain values that travel between processes.

    `config` is a `TrialConfig` as JSON. `checkpoint` is written after every epoch and read first if it exists;
    `output` receives the trained student. `threads` is the number of CPU threads a rank may use. `maps_plan` says which
    maps of the teacher are cached; the first workers that need them write them, and say so in the file `log`.
    """

    id: str
    config: str
    store: str
    teacher_weights: str | None
    checkpoint: str
    output: str
    threads: int = 1
    maps_plan: dict[str, Any] | None = None
    log: str = ""


class WorkerGroup:
    """Handle of one resident group, held by the Tune trial's actor."""

    def __init__(self, placement: Placement, scratch: str) -> None:
        # Helper actors look the cluster up by themselves; with several clusters on a machine they need its address.
        self._mailbox = Mailbox.remote()  # type: ignore[attr-defined]
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(placement, scratch), daemon=True)
        self._thread.start()

    def _run(self, placement: Placement, scratch: str) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        trainer = TorchTrainer(
            serve,
            train_loop_config={"mailbox": self._mailbox},
            # NCCL refuses two ranks on one GPU.
            torch_config=TorchConfig(backend="nccl" if placement.gpus >= 1 else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=placement.workers,
                use_gpu=placement.gpus > 0,
                resources_per_worker={"CPU": placement.cpus} | ({"GPU": placement.gpus} if placement.gpus else {}),
            ),
            run_config=RunConfig(
                name=f"workers-{time.time_ns()}", storage_path=scratch, failure_config=FailureConfig(max_failures=0)
            ),
        )
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001  whatever ended the group is raised where its reply is awaited
            self._error = error

    def start(self, job: Job) -> dict[str, Any]:
        """Build the job's trial, from its checkpoint if it has one. Returns where it stands: `epoch` and `metrics`."""
        return self._call({"do": "start", "job": job})

    def epoch(self) -> dict[str, Any]:
        """Train and validate one epoch, save the state. Returns where it stands, or `failed`: why it cannot go on."""
        return self._call({"do": "epoch"})

    def stop(self) -> None:
        """End the group; its processes are gone when this returns, or are being killed with its actors."""
        if self._thread.is_alive():
            self._mailbox.send.remote({"do": "stop"})
            self._thread.join(timeout=20)
        ray.kill(self._mailbox)

    def _call(self, command: dict[str, Any]) -> dict[str, Any]:
        self._mailbox.send.remote(command)
        pending = self._mailbox.next_reply.remote()
        while True:
            ready, _ = ray.wait([pending], timeout=1.0)
            if ready:
                reply: dict[str, Any] = ray.get(ready[0])
                return reply
            if not self._thread.is_alive():
                raise WorkersDiedError(f"the workers died: {_cause(self._error)}") from self._error


def serve(config: dict[str, Any]) -> None:
    """What every rank runs: take commands until told to stop."""
    from ray.train import get_context

    mailbox = config["mailbox"]
    rank, world_size = get_context().get_world_rank(), get_context().get_world_size()
    trainer = _Rank(rank, world_size)
    for number in range(10**9):
        command = ray.get(mailbox.receive.remote(number))
        if command["do"] == "stop":
            return
        try:
            reply = trainer.start(command["job"]) if command["do"] == "start" else trainer.epoch()
        except Exception as error:
            # One rank alone can report and serve on. Of several, the others may wait for this one in a collective:
            # the group has to end, and Ray Train ends it.
            if world_size > 1:
                raise
            traceback.print_exc()
            reply = {"failed": f"{type(error).__name__}: {error}"}
        if rank == 0:
            ray.get(mailbox.reply.remote(reply))


class _Rank:
    """One rank of a group: the trial in hand, and what outlives it."""

    def __init__(self, rank: int, world_size: int) -> None:
        from ray.train.torch import get_device

        from kdsearch.compat import ensure_torchvision

        ensure_torchvision()
        self.rank, self.world_size = rank, world_size
        self.device = get_device()
        self.resources: Resources | None = None
        self.trial: Trial | None = None
        self.job: Job | None = None

    def start(self, job: Job) -> dict[str, Any]:
        import torch

        from kdsearch.config.trial import TrialConfig
        from kdsearch.train.trial import Trial

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

    def _resources_for(self, job: Job) -> Resources:
        from kdsearch.train.maps_plan import MapsPlan
        from kdsearch.train.resources import Resources

        teacher = Path(job.teacher_weights) if job.teacher_weights else None
        plan = None if job.maps_plan is None else MapsPlan.from_json(job.maps_plan)
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
            return {"failed": str(error), "infeasible": isinstance(error, DoesNotFitError)}
        if self.rank == 0:
            self.trial.save(Path(self.job.checkpoint), self.metrics)
        return self._report()

    def _report(self) -> dict[str, Any]:
        """Where the trial stands; a trial at its end is written out as a student first."""
        assert self.trial is not None
        assert self.job is not None
        trial, metrics = self.trial, self.metrics
        if trial.epoch == trial.config.train.epochs and self.rank == 0:
            from kdsearch.student import save_student

            write_folder_atomically(Path(self.job.output), lambda folder: save_student(folder, trial, metrics))
        return {"epoch": trial.epoch, "metrics": metrics}


def _append(log: str, job: str, line: str) -> None:
    """Add a line to the study's log, or print it where there is none: what workers print stays with Ray."""
    if not log:
        print(line, flush=True)
        return
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%H:%M:%S')} {job}: {line}\n")


def _cause(error: BaseException | None) -> str:
    """The first sentence of the last line of an error, which is where Ray puts the cause."""
    lines = str(error).strip().splitlines() if error is not None else []
    return lines[-1].split(". ")[0] if lines else "their process ended"
