"""Resident Ray Train workers: one worker group that trains trial after trial.

Starting a Ray Train run costs tens of seconds of process starts; a search of short trials would spend most of its time
there. Here a group is started once per slot and takes commands from a `CommandChannel`: the group keeps its processes, open
data stores, loaded teacher and CUDA context, and between trials frees only the student and its optimiser.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kdsearch.engine.command_channel import CommandChannel

STOP_S = 30.0
"""Seconds that a group may take to end; then it is killed."""
PLACE_SHARE = 0.5
"""Of the time in which a group must be up, the part in which it must have found a place in the cluster."""


class WorkersDiedError(RuntimeError):
    """The worker group ended while it was still needed. The trial goes on from its checkpoint in a new group."""


class WorkersHungError(RuntimeError):
    """The worker group did not answer in time and was killed. The trial goes on from its checkpoint in a new group."""


@dataclass(frozen=True)
class Placement:
    """What one trial occupies: `workers` ranks, each with `cpus` and `gpus`."""

    workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0

    def __str__(self) -> str:
        return f"{self.workers} worker(s) with {self.cpus:g} CPU and {self.gpus:g} GPU each"


@dataclass(frozen=True)
class TrialJob:
    """One training for a worker group, as plain values that travel between processes.

    `config` is a `TrialConfig` as JSON. `checkpoint` is written after every epoch and read first if it exists;
    `output` receives the trained student. `threads` is the number of CPU threads a rank may use. `maps_plan` says which
    maps of the teacher are cached; the first workers that need them write them, and say so in the file `log`.
    `plugins` names the modules that terms of the configuration may come from.
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
    plugins: str = ""


class WorkerGroup:
    """Handle of one resident group, held by the Tune trial's actor. Every wait here ends: see `Timeouts`."""

    def __init__(self, placement: Placement, scratch: str, limit_s: float) -> None:
        """Start the group's processes; `limit_s` is how long they may take to come up."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Beside the actor that asks: the death of another node must not cost a group that had nothing there.
        self._mailbox = CommandChannel.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
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

        from kdsearch.engine.worker_loop import serve

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
                name=f"workers-{time.time_ns()}",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001  whatever ended the group is raised where its reply is awaited
            self._error = error

    def start(self, job: TrialJob, limit_s: float) -> dict[str, Any]:
        """Build the job's trial, from its checkpoint if it has one. Returns where it stands: `epoch` and `metrics`.

        Raises `WorkersDiedError`, and `WorkersHungError` when the group is not up in time or takes over `limit_s`.
        """
        if self._ranks is None:
            joined = self._mailbox.joined.remote(self._placement.workers)
            self._ranks = self._wait(joined, self._limit_s, f"the start of {self._placement}", "search.start_timeout")
        return self._call({"do": "start", "job": job}, limit_s, f"setting {job.id} up")

    def epoch(self, number: int, limit_s: float) -> dict[str, Any]:
        """Train and validate an epoch, the `number`th of the trial, and save the state.

        Returns where the trial stands; or `failed`, why it cannot go on; or `broken`, why nothing can be saved. Raises
        as `start` does.
        """
        return self._call({"do": "epoch"}, limit_s, f"epoch {number}")

    def stop(self) -> None:
        """End the group: its processes are gone when this returns, or go with those of the actor that holds it."""
        if self._thread.is_alive():
            self._mailbox.send.remote({"do": "stop"})
            self._thread.join(timeout=STOP_S)
        if self._thread.is_alive():
            self.kill()
        ray.kill(self._mailbox)
        free_orphaned_places()

    def kill(self) -> None:
        """End the group whatever it is doing, and give its place in the cluster back."""
        for rank in self._ranks or ():
            ray.kill(rank)
        self._thread.join(timeout=STOP_S)  # Ray Train sees the deaths, and ends the group in order

    def _call(self, command: dict[str, Any], limit_s: float, what: str) -> dict[str, Any]:
        self._mailbox.send.remote(command)
        reply: dict[str, Any] = self._wait(self._mailbox.next_reply.remote(), limit_s, what, "search.epoch_timeout")
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


def free_orphaned_places() -> None:
    """Give back the places of worker groups whose controller was killed: by the system for want of memory, say.

    Ray Train's own helper for this asks the dashboard's server, which a local cluster does not have; then a group's
    CPUs stay taken until the study ends. Ray has no public way to ask who made a placement group.
    """
    from ray._private.state import state
    from ray._raylet import PlacementGroupID
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    job = ray.get_runtime_context().get_job_id()
    for data in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(data)
        of_an_actor = set(group.creator_actor_id) != {0xFF}
        left = group.creator_actor_dead and group.state != PlacementGroupTableData.REMOVED
        if of_an_actor and left and group.creator_job_id.hex() == job:
            remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))


def _cause(error: BaseException | None) -> str:
    """The first sentence of the last line of an error, which is where Ray puts the cause."""
    lines = str(error).strip().splitlines() if error is not None else []
    return lines[-1].split(". ")[0] if lines else "their process ended"
