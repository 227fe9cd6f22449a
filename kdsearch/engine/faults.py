"""Whose fault a failed attempt is: the configuration's, which ends the trial, or a machine's, which moves it.

No Ray here: the ledger gets the ends of attempts and the living nodes, and decides. A trial is handed out as often as
machines fail it. What counts against its configuration are failures since its last epoch, each in a new process: the
same exception in `SAME_ERROR` of them, or `max_failures` restarts and one more. The last of them is on another node
than the earlier ones wherever there is one, and what happened on a node that has gone, or on one that fails trial after
trial, does not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from kdsearch.engine.cluster import Node, trials_that_fit
from kdsearch.engine.messages import AttemptEnded, Placement

SAME_ERROR = 3
"""Processes in which the same exception makes it the configuration's own."""
NODE_TRIALS = 3
"""Different trials that fail in a row on a node before it is avoided."""


@dataclass(frozen=True)
class Decision:
    """What becomes of the trial: handed out `again` at once, `later` than all others, or ended by a `fail`ure.

    `wait` is `again` for a trial that found no place: nothing has gone wrong. `message` is a line for people, or empty.
    """

    action: Literal["again", "later", "wait", "fail"]
    message: str = ""


class Faults:
    """The failures of a study's trials and nodes. `nodes` returns the living nodes by their id."""

    def __init__(self, placement: Placement, max_failures: int, nodes: Callable[[], Mapping[str, Node]]) -> None:
        self._placement, self._max_failures, self._nodes = placement, max_failures, nodes
        self._epochs: dict[str, int] = {}
        self._failures: dict[str, list[AttemptEnded]] = {}
        self._elsewhere: set[str] = set()
        """Trials whose next failure would be their last."""
        self._alone: set[str] = set()
        self._waiting: set[str] = set()
        self._streaks: dict[str, dict[str, str]] = {}
        """Per node, the trials that failed there in a row, with their reasons."""
        self._suspects: set[str] = set()

    def on_progress(self, trial_id: str, epoch: int, nodes: tuple[str, ...]) -> None:
        """A trial has reported an epoch; one that it had not reached before clears it and its nodes."""
        if epoch <= self._epochs.get(trial_id, -1):
            return
        self._epochs[trial_id] = epoch
        self._failures.pop(trial_id, None)
        self._elsewhere.discard(trial_id)
        self._waiting.discard(trial_id)
        for node in nodes:
            self._streaks.pop(node, None)
            self._suspects.discard(node)

    def on_attempt_ended(self, trial_id: str, ended: AttemptEnded) -> Decision:
        """An attempt at a trial has ended without a verdict on its configuration."""
        if ended.kind == "place":
            return Decision("wait", self.on_wait(trial_id, ended.reason))
        if ended.kind == "memory" and trial_id not in self._alone:
            self._alone.add(trial_id)
            return Decision("later", f"{trial_id} is tried again alone on a device, once the others leave room")
        self._failures.setdefault(trial_id, []).append(ended)
        message = self._blame(trial_id, ended)
        left = self._attempts_left(trial_id, ended)
        if left <= 0:
            return Decision("fail", message)
        if left == 1:
            self._elsewhere.add(trial_id)
        # Resident workers keep their places while there are trials: another place becomes free when those are done.
        later = ended.kind == "memory" or (left == 1 and bool(set(self.avoid(trial_id)) - self._suspects))
        return Decision("later" if later else "again", message)

    def on_wait(self, trial_id: str, reason: str = "") -> str:
        """The message for a trial without a place at the moment: once until the trial goes on, then empty."""
        if trial_id in self._waiting:
            return ""
        self._waiting.add(trial_id)
        reason = reason or f"the cluster has no room for {self._placement}"
        return f"{trial_id} waits: {reason}; it starts as soon as there is room"

    def avoid(self, trial_id: str) -> tuple[str, ...]:
        """Nodes on which the trial must not start; none that would leave it without a place for ever."""
        own = {node for ended in self._failures.get(trial_id, ()) for node in ended.nodes}
        own = own if trial_id in self._elsewhere else set()
        living = self._nodes()
        for avoided in (self._suspects | own, own, self._suspects):
            if avoided & living.keys() and self._fits({id: node for id, node in living.items() if id not in avoided}):
                return tuple(sorted(avoided))
        return ()

    def alone(self, trial_id: str) -> bool:
        """Whether the trial needs whole devices: others held memory of the one it had a share of."""
        return trial_id in self._alone

    def suspects(self) -> frozenset[str]:
        """Ids of the nodes that are avoided for all trials."""
        if not self._suspects:
            return frozenset()
        living = self._nodes()
        others = {id: node for id, node in living.items() if id not in self._suspects}
        return frozenset(self._suspects) if self._fits(others) else frozenset()

    def _attempts_left(self, trial_id: str, ended: AttemptEnded) -> int:
        """How many more failures like this one the trial has before it fails."""
        living, suspects = self._nodes(), self.suspects()

        def counts(failure: AttemptEnded) -> bool:
            here = [node for node in failure.nodes if node in living and node not in suspects]
            return not failure.nodes or bool(here)

        counted = [failure for failure in self._failures[trial_id] if counts(failure)]
        left = self._max_failures + 1 - len(counted)
        if ended.kind == "error":
            same = sum(failure.kind == "error" and _key(failure) == _key(ended) for failure in counted)
            left = min(left, SAME_ERROR - same)
        return left

    def _blame(self, trial_id: str, ended: AttemptEnded) -> str:
        """Note the failure against its node, where there is one; the message that names a node avoided from now on."""
        if len(ended.nodes) != 1 or ended.kind == "memory":
            return ""
        (node,) = ended.nodes
        streak = self._streaks.setdefault(node, {})
        streak[trial_id] = ended.reason
        if len(streak) < NODE_TRIALS or node in self._suspects:
            return ""
        self._suspects.add(node)
        known = self._nodes().get(node)
        name = known.name if known is not None and known.name else node[:12]
        said = (
            f"{len(streak)} trials in a row ({', '.join(streak)}) failed on node {name}, the last with: {ended.reason}"
        )
        if node in self.suspects():
            return f"{said}; the node is avoided from now on: mend it or take it out of the cluster"
        return f"{said}; there is no other node for them: mend it, then --resume asks failed trials again"

    def _fits(self, nodes: Mapping[str, Node]) -> bool:
        return trials_that_fit(self._placement, list(nodes.values())) > 0


def _key(ended: AttemptEnded) -> str:
    """A reason without the numbers and addresses that differ from process to process."""
    return re.sub(r"0x[0-9a-f]+|\d+", "#", ended.reason)
