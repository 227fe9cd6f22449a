"""Commands and replies between the driver, the trial actors and the workers: plain values that travel between
processes.

The driver hands a `TrialJob` to a trial actor; the actor sends a `Command` to its worker group and gets a `Reply`; Ray
Tune carries the reply to the driver as a result (`to_result`, `from_result`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Placement:
    """The resources of one trial: `workers` ranks with `cpus` and `gpus` per rank."""

    workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0

    def __str__(self) -> str:
        return f"{self.workers} worker(s) with {self.cpus:g} CPU and {self.gpus:g} GPU each"


@dataclass(frozen=True)
class TrialJob:
    """One training.

    `config` is a `TrialConfig` as JSON. `checkpoint` is written after every epoch and loaded first if it exists;
    `output` receives the trained student. `threads` is the most CPU threads per rank, of those that its machine has.
    `cache_plan` lists the cached maps of the teacher; the first workers that need them write them, and report progress
    in the file `log`. `plugins` names the plug-in modules of the configuration.
    """

    id: str
    config: str
    store: str
    teacher_weights: str | None
    checkpoint: str
    output: str
    threads: int = 1
    cache_plan: dict[str, Any] | None = None
    log: str = ""
    plugins: str = ""


# ---- commands: trial actor to workers --------------------------------------------------------------------------------


@dataclass(frozen=True)
class StartTrial:
    """Build the trial of `job` and load its checkpoint, where one exists."""

    job: TrialJob


@dataclass(frozen=True)
class TrainEpoch:
    """Train and validate one epoch and save the state."""


@dataclass(frozen=True)
class StopWorkers:
    """End the worker group."""


Command = StartTrial | TrainEpoch | StopWorkers

# ---- replies: workers to trial actor to driver -----------------------------------------------------------------------

METRIC_PREFIX = "metrics/"


@dataclass(frozen=True)
class Progress:
    """The trial has trained `epoch` epochs; `metrics` are those of the last one. Both are saved in its checkpoint.

    `nodes` are the ids of the nodes on which it trains, as the trial actor knows them.
    """

    epoch: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()

    def to_result(self) -> dict[str, Any]:
        """The result of a Tune step; Tune flattens nested metrics to `metrics/<name>`."""
        return {"epoch": self.epoch, "metrics": dict(self.metrics), "nodes": self.nodes}

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> Progress:
        """Reads a result as Tune delivers it to schedulers."""
        metrics = {k.removeprefix(METRIC_PREFIX): v for k, v in result.items() if k.startswith(METRIC_PREFIX)}
        return cls(int(result["epoch"]), metrics, tuple(result.get("nodes", ())))


@dataclass(frozen=True)
class TrialFailed:
    """A verdict: the configuration fails on any machine. `infeasible`: it does not fit on a device that it has alone.

    `group_stuck`: this rank alone replied, the others wait for it in a collective, so the group has to be killed.
    """

    reason: str
    infeasible: bool = False
    group_stuck: bool = False

    def to_result(self) -> dict[str, Any]:
        return {"trial_failed": self.reason, "infeasible": self.infeasible, "done": True}


Kind = Literal["error", "died", "hung", "memory", "place"]


@dataclass(frozen=True)
class AttemptEnded:
    """The workers could not go on, which is no verdict on the configuration: the trial is tried elsewhere, or waits.

    `kind` is `error` for an exception in a worker, whose process ends with it (its device or its mounts may be broken
    for good); `died` for processes that are gone; `hung` for ones that were killed; `memory` for a device that was full
    while others held memory of it; `place` where the cluster had no room. `nodes` are the ids of the nodes concerned,
    as far as they are known.
    """

    reason: str
    kind: Kind
    nodes: tuple[str, ...] = ()

    def to_result(self) -> dict[str, Any]:
        return {"attempt_ended": self.reason, "kind": self.kind, "nodes": self.nodes, "done": True}


@dataclass(frozen=True)
class NotSaved:
    """The state of the trial could not be written to `folder`.

    `full`: there is no room, so the next trial could not be saved either. Otherwise it may be the worker's mount alone.
    """

    reason: str
    full: bool = True
    folder: str = ""
    nodes: tuple[str, ...] = ()

    def to_result(self) -> dict[str, Any]:
        return {
            "not_saved": self.reason, "full": self.full, "folder": self.folder, "nodes": self.nodes, "done": True,
        }  # fmt: skip


Reply = Progress | TrialFailed | AttemptEnded | NotSaved


def reply_of(result: Mapping[str, Any]) -> Reply:
    """The reply whose `to_result` gave this result of a Tune step."""
    nodes = tuple(result.get("nodes", ()))
    if "not_saved" in result:
        return NotSaved(str(result["not_saved"]), bool(result["full"]), str(result["folder"]), nodes)
    if "attempt_ended" in result:
        return AttemptEnded(str(result["attempt_ended"]), result["kind"], nodes)
    if "trial_failed" in result:
        return TrialFailed(str(result["trial_failed"]), bool(result["infeasible"]))
    return Progress.from_result(result)


def epoch_seconds(metrics: Mapping[str, float]) -> float:
    """The duration of the epoch with these metrics, in seconds."""
    return metrics.get("time/train_s", 0.0) + metrics.get("time/val_s", 0.0)
