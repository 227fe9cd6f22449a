"""The Tune trainable: a thin shell around a resident worker group, reused from trial to trial."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

from ray import tune

from kdsearch.engine.messages import (
    AttemptEnded,
    Placement,
    Progress,
    Reply,
    TrialFailed,
    TrialJob,
    epoch_seconds,
)
from kdsearch.engine.timeouts import Timeouts
from kdsearch.engine.worker_group import GroupLostError, WorkerGroup

IDLE_S = 30.0
"""Seconds without a trial after which a worker group ends; starting one takes about as long."""


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """One step is one epoch. With `reuse_actors=True` a new trial only sends its `TrialJob` to the group already
    running.

    A trial of Tune is one attempt at a trial of the study: whatever ends it without a verdict is a result too, and the
    driver hands the trial out again. State is not kept in Tune checkpoints: the workers save a trial after every epoch
    under its own name in the run folder, so the next attempt, a new group or a new driver all go on from there.
    """

    def setup(self, config: dict[str, Any]) -> None:
        # The group starts with the first step: Tune drops actors that it turns out not to need, and a group that is
        # cut off while it starts keeps its place.
        self.group: WorkerGroup | None = None
        self.in_use = threading.Lock()
        self.used_at = time.monotonic()
        threading.Thread(target=self._give_back_when_idle, daemon=True).start()
        self.timeouts: Timeouts = config["timeouts"]
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self.job: TrialJob = config["job"]
        self.avoid: tuple[str, ...] = config["avoid"]
        self.placement: Placement = config["placement"]
        if config["alone"]:
            self.placement = replace(self.placement, gpus=max(1.0, self.placement.gpus))
        self.longest_s: float = config["longest_epoch_s"]
        self.epoch: int | None = None

    def step(self) -> dict[str, Any]:
        with self.in_use:
            reply = self._attempt()
            self.used_at = time.monotonic()
        if isinstance(reply, Progress):
            self.epoch = reply.epoch
            self.longest_s = max(self.longest_s, epoch_seconds(reply.metrics))
        return reply.to_result()

    def _attempt(self) -> Reply:
        """The next reply of the workers. A group that cannot serve the next trial is gone when this returns."""
        try:
            reply = self._next_reply()
        except GroupLostError as error:
            reply = AttemptEnded(str(error), error.kind, self.group.nodes if self.group is not None else ())
        group = self.group
        if group is None or not _breaks(reply, group):
            return replace(reply, nodes=group.nodes) if group is not None and isinstance(reply, Progress) else reply
        group.kill()
        self._end_group()
        if not group.ended:
            raise RuntimeError("the workers cannot be ended, so this process ends with them")
        return reply

    def _next_reply(self) -> Reply:
        first = self.timeouts.of_epoch(self.longest_s, first=True)
        if self.epoch is None or self.group is None:
            reply = self._group().start(self.job, first)
            if not isinstance(reply, Progress) or reply.epoch > (self.epoch or 0):
                return reply  # At a checkpoint, whose epoch counts as this step: it may not have been reported yet.
            self.epoch = reply.epoch
        limit_s = first if self.epoch == 0 else self.timeouts.of_epoch(self.longest_s, first=False)
        return self._group().train_epoch(self.epoch + 1, limit_s)

    def _group(self) -> WorkerGroup:
        group = self.group
        if group is not None and (group.placement != self.placement or set(group.nodes) & set(self.avoid)):
            self._end_group()
        if self.group is None:
            self.group = WorkerGroup(self.placement, self.config["scratch"], self.timeouts.group_s, self.avoid)
        return self.group

    def _give_back_when_idle(self) -> None:
        """End the group when no trial wants it for a while: a trial whose node died may wait for its place."""
        while True:
            time.sleep(1)
            with self.in_use:
                if time.monotonic() - self.used_at > IDLE_S:
                    self._end_group()

    def cleanup(self) -> None:
        with self.in_use:
            self._end_group()

    def _end_group(self) -> None:
        if self.group is not None:
            self.group.stop()
            self.group = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: see the class."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load: see the class."""


def _breaks(reply: Reply, group: WorkerGroup) -> bool:
    """Whether the group cannot serve the next trial: a process that raised may do so for ever, and its ranks wait."""
    match reply:
        case Progress():
            return False
        case TrialFailed():
            return reply.group_stuck
        case AttemptEnded(kind="memory"):
            return group.placement.workers > 1
    return True
