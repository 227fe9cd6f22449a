"""Resident Ray Train workers: one worker group that trains trial after trial.

Starting a Ray Train run costs tens of seconds of process starts; a search of short trials would spend most of its time
there. Here a group is started once per slot and takes commands from a `CommandChannel`: the group keeps its processes,
open data stores, loaded teacher and CUDA context, and between trials frees only the student and its optimiser.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kdsearch.engine.command_channel import CommandChannel
from kdsearch.engine.messages import Command, Placement, Reply, StartTrial, StopWorkers, TrainEpoch, TrialJob
from kdsearch.engine.ray_private import free_orphaned_places

STOP_S = 30.0
"""Seconds that a group may take to end; then it is killed."""
PLACE_SHARE = 0.5
"""Of the time in which a group must be up, the part in which it must have found a place in the cluster."""


class WorkersDiedError(RuntimeError):
    """The worker group ended while it was still needed. The trial goes on from its checkpoint in a new group."""


class WorkersHungError(RuntimeError):
    """The worker group did not answer in time and was killed. The trial goes on from its checkpoint in a new group."""


class WorkerGroup:
    """Handle of one resident group, held by the Tune trial's actor. Every wait here ends: see `Timeouts`."""

    def __init__(self, placement: Placement, scratch: str, limit_s: float) -> None:
        """Start the group's processes; `limit_s` is how long they may take to come up."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Beside the actor that asks: the death of another node must not cost a group that had nothing there.
        self._channel = CommandChannel.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
        self._placement = placement
        self._limit_s = limit_s
        self._ranks: list[Any] | None = None
        self._error: BaseException | None = None
        # Ray Train would ask for a place for ever; it gives the place back in order only when it gives up by itself.
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(limit_s * PLACE_SHARE)
        self._thread = threading.Thread(target=self._run, args=(placement, scratch), daemon=True)
        self._thread.start()

    def _run(self, placement: Placement, scratch: str) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        from kdsearch.engine.worker_loop import run_worker

        trainer = TorchTrainer(
            run_worker,
            train_loop_config={"channel": self._channel},
            # NCCL refuses two ranks on one GPU.
            torch_config=TorchConfig(backend="nccl" if placement.gpus >= 1 else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=placement.workers,
                use_gpu=placement.gpus > 0,
                resources_per_worker={"CPU": placement.cpus} | ({"GPU": placement.gpus} if placement.gpus else {}),
            ),
            run_config=RunConfig(
                name=f"workers-{time.time_ns()}",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001  whatever ended the group is raised where its reply is awaited
            self._error = error

    def start(self, job: TrialJob, limit_s: float) -> Reply:
        """Build the job's trial and load its checkpoint, where one exists. The reply gives the epoch it stands at.

        Raises `WorkersDiedError`, and `WorkersHungError` when the group is not up in time or takes over `limit_s`.
        """
        if self._ranks is None:
            joined = self._channel.joined.remote(self._placement.workers)
            self._ranks = self._wait(joined, self._limit_s, f"the start of {self._placement}", "search.start_timeout")
        return self._call(StartTrial(job), limit_s, f"building {job.id}")

    def train_epoch(self, number: int, limit_s: float) -> Reply:
        """Train and validate epoch `number` of the trial and save the state. Raises as `start` does."""
        return self._call(TrainEpoch(), limit_s, f"epoch {number}")

    def stop(self) -> None:
        """End the group: its processes are gone when this returns, or go with those of the actor that holds it."""
        if self._thread.is_alive():
            self._channel.send.remote(StopWorkers())
            self._thread.join(timeout=STOP_S)
        if self._thread.is_alive():
            self.kill()
        ray.kill(self._channel)
        free_orphaned_places()

    def kill(self) -> None:
        """End the group whatever it is doing, and give its place in the cluster back."""
        for rank in self._ranks or ():
            ray.kill(rank)
        self._thread.join(timeout=STOP_S)  # Ray Train sees the deaths, and ends the group in order

    def _call(self, command: Command, limit_s: float, what: str) -> Reply:
        self._channel.send.remote(command)
        reply: Reply = self._wait(self._channel.next_reply.remote(), limit_s, what, "search.epoch_timeout")
        return reply

    def _wait(self, pending: Any, limit_s: float, what: str, setting: str) -> Any:
        end = time.monotonic() + limit_s
        while not ray.wait([pending], timeout=1.0)[0]:
            if self._ranks is None:
                free_orphaned_places()
            if not self._thread.is_alive():
                ended = "the workers died" if self._ranks is not None else f"no place or no start for {self._placement}"
                raise WorkersDiedError(f"{ended}: {_cause(self._error)}") from self._error
            if time.monotonic() > end:
                self.kill()
                raise WorkersHungError(f"the workers hung: {what} took more than {limit_s:g} s ({setting})")
        try:
            return ray.get(pending)
        except RayError as error:
            # Not as it is: Tune would take it for the death of its own actor.
            raise WorkersDiedError(f"the workers died: {_cause(error)}") from None


def _cause(error: BaseException | None) -> str:
    """The first sentence of the last line of an error, which is where Ray puts the cause."""
    lines = str(error).strip().splitlines() if error is not None else []
    return lines[-1].split(". ")[0] if lines else "their process ended"
