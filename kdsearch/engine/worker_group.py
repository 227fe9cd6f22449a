"""Resident Ray Train workers: one worker group that trains trial after trial.

Starting a Ray Train run costs tens of seconds of process starts; a search of short trials would spend most of its time
there. Here a group is started once per slot and takes commands from a `CommandChannel`: the group keeps its processes,
open data stores, loaded teacher and CUDA context, and between trials frees only the student and its optimiser.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kdsearch.engine.command_channel import CommandChannel
from kdsearch.engine.messages import Command, Kind, Placement, Reply, StartTrial, StopWorkers, TrainEpoch, TrialJob
from kdsearch.engine.ray_private import free_orphaned_places

NODE_LABEL = "ray.io/node-id"
STOP_S = 30.0
"""Seconds that a group may take to end; then it is killed."""
PLACE_SHARE = 0.5
PLACE_S = 120.0
"""Seconds for which a group asks for a place in the cluster, or that share of the time in which it must be up. Then it
gives up, and the trial is handed out anew: the nodes to avoid may have changed, and another trial may be due."""
NO_PLACE = ("WorkerGroupStartupTimeoutError", "InsufficientClusterResourcesError")
"""Errors of Ray Train that mean that the cluster has no room at the moment."""


class GroupLostError(RuntimeError):
    """The group cannot go on, whatever it trains. The trial goes on from its checkpoint in a new group."""

    kind: ClassVar[Kind]


class NoPlaceError(GroupLostError):
    """The cluster has no room for the group at the moment."""

    kind = "place"


class WorkersDiedError(GroupLostError):
    """The worker group ended while it was still needed."""

    kind = "died"


class WorkersHungError(GroupLostError):
    """The worker group did not answer in time and was killed."""

    kind = "hung"


class WorkerGroup:
    """Handle of one resident group, held by the Tune trial's actor. Every wait here ends: see `Timeouts`.

    `nodes` are the ids of the nodes on which its ranks are, empty until they are up.
    """

    def __init__(self, placement: Placement, scratch: str, limit_s: float, avoid: Sequence[str] = ()) -> None:
        """Start the group's processes, on none of the nodes `avoid`; `limit_s` is how long they may take to come up."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Beside the actor that asks: the death of another node must not cost a group that had nothing there.
        self._channel = CommandChannel.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
        self.placement = placement
        self.nodes: tuple[str, ...] = ()
        self._avoid = tuple(avoid)
        self._limit_s = limit_s
        self._ranks: list[Any] | None = None
        self._error: BaseException | None = None
        # Ray Train would ask for a place for ever; it gives the place back in order only when it gives up by itself.
        self._place_s = min(limit_s * PLACE_SHARE, PLACE_S)
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(self._place_s)
        self._thread = threading.Thread(target=self._run, args=(placement, scratch), daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether nothing of the group is left, or will be soon."""
        return not self._thread.is_alive()

    def _run(self, placement: Placement, scratch: str) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        from kdsearch.engine.worker_loop import run_worker

        trainer = TorchTrainer(
            run_worker,
            # A device is a trial's own unless it has a share of it.
            train_loop_config={"channel": self._channel, "whole_device": not 0 < placement.gpus < 1},
            # NCCL refuses two ranks on one GPU.
            torch_config=TorchConfig(backend="nccl" if placement.gpus >= 1 else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=placement.workers,
                use_gpu=placement.gpus > 0,
                resources_per_worker={"CPU": placement.cpus} | ({"GPU": placement.gpus} if placement.gpus else {}),
                label_selector={NODE_LABEL: f"!in({','.join(self._avoid)})"} if self._avoid else None,
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

        Raises `WorkersDiedError`, `WorkersHungError` when the group is not up in time or takes over `limit_s`, and
        `NoPlaceError` where the cluster has no room for it.
        """
        self.wait_until_up()
        return self._call(StartTrial(job), limit_s, f"building {job.id}")

    def wait_until_up(self) -> None:
        """Wait until all ranks take commands. Raises as `start` does."""
        if self._ranks is not None:
            return
        what, limit, setting = f"the start of {self.placement}", self._limit_s, "search.start_timeout"
        joined = self._wait(self._channel.joined.remote(self.placement.workers), self._place_s + limit, what, setting)
        self._ranks = [actor for actor, _ in joined]
        self.nodes = tuple(dict.fromkeys(node for _, node in joined))
        self._wait(self._channel.all_ready.remote(self.placement.workers), limit, what, setting)

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
                if self._ranks is None and _is_without_place(self._error):
                    raise NoPlaceError(f"the cluster has no room for {self.placement}") from self._error
                ended = "the workers died" if self._ranks is not None else f"no start for {self.placement}"
                raise WorkersDiedError(f"{ended}: {_cause(self._error)}") from self._error
            if time.monotonic() > end:
                self.kill()
                raise WorkersHungError(f"the workers hung: {what} took more than {limit_s:g} s ({setting})")
        try:
            return ray.get(pending)
        except RayError as error:
            # Not as it is: Tune would take it for the death of its own actor.
            raise WorkersDiedError(f"the workers died: {_cause(error)}") from None


def _is_without_place(error: BaseException | None) -> bool:
    """Whether Ray Train gave up asking for a place, which it wraps into an error of its controller."""
    return type(getattr(error, "controller_failure", error)).__name__ in NO_PLACE


def _cause(error: BaseException | None) -> str:
    """The first sentence of the last line of an error, which is where Ray puts the cause."""
    lines = str(error).strip().splitlines() if error is not None else []
    return lines[-1].split(". ")[0] if lines else "their process ended"
