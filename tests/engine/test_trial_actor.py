"""What a trial actor does with its worker group, whose place a pretended one takes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from kdsearch.engine import trial_actor
from kdsearch.engine.messages import AttemptEnded, NotSaved, Placement, Progress, TrialFailed, TrialJob, reply_of
from kdsearch.engine.timeouts import Timeouts
from kdsearch.engine.trial_actor import TrialActor
from kdsearch.engine.worker_group import NoPlaceError, WorkersDiedError, WorkersHungError


class Pretended:
    """A group on node `a`, or on `b` where it must avoid `a`; every command gets `reply`, or raises it."""

    started: list[Pretended]
    reply: Any

    def __init__(self, placement: Placement, scratch: str, limit_s: float, avoid: tuple[str, ...]) -> None:
        self.placement = placement
        self.nodes = ("b",) if "a" in avoid else ("a",)
        self.killed = self.stopped = False
        self.can_end = True
        self.started.append(self)

    @property
    def ended(self) -> bool:
        return self.stopped and self.can_end

    def start(self, job: TrialJob, limit_s: float) -> Any:
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    train_epoch: Callable[..., Any] = start

    def kill(self) -> None:
        self.killed = True

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[Pretended]:
    """The groups that the actor has started, oldest first."""
    Pretended.started = []
    Pretended.reply = Progress(1, {"val/miou": 0.5})
    monkeypatch.setattr(trial_actor, "WorkerGroup", Pretended)
    return Pretended.started


def config(avoid: tuple[str, ...] = (), alone: bool = False, gpus: float = 0.5, workers: int = 1) -> dict[str, Any]:
    return {
        "job": TrialJob("t0000", "{}", "", None, "", ""), "avoid": avoid, "alone": alone, "longest_epoch_s": 1.0,
        "placement": Placement(workers, 1.0, gpus), "scratch": "", "timeouts": Timeouts(900),
    }  # fmt: skip


def actor(**options: Any) -> TrialActor:
    made = object.__new__(TrialActor)
    made.group, made.in_use = None, threading.Lock()
    made.config = config(**options)
    made.timeouts = made.config["timeouts"]
    made._begin(made.config)
    return made


def step(made: TrialActor, reply: Any) -> Any:
    Pretended.reply = reply
    return reply_of(made.step())


def test_progress_names_its_nodes(groups: list[Pretended]) -> None:
    result = actor().step()
    assert (result["epoch"], result["nodes"]) == (1, ("a",))
    assert not groups[0].killed


@pytest.mark.parametrize(
    ("error", "kind"),
    [(WorkersDiedError("gone"), "died"), (WorkersHungError("slow"), "hung"), (NoPlaceError("no room"), "place")],
)
def test_a_group_that_is_lost_ends_the_attempt_and_not_the_actor(
    error: Exception, kind: Any, groups: list[Pretended]
) -> None:
    made = actor()
    assert step(made, error) == AttemptEnded(str(error), kind, ("a",))
    assert groups[0].ended
    assert made.group is None


@pytest.mark.parametrize(
    "reply",
    [
        AttemptEnded("RuntimeError: CUDA error", "error", ("a",)),
        NotSaved("Stale file handle", False, "/runs", ("a",)),
        TrialFailed("out of device memory", infeasible=True, group_stuck=True),
    ],
)
def test_a_process_in_which_something_broke_serves_no_other_trial(reply: Any, groups: list[Pretended]) -> None:
    made = actor()
    step(made, reply)
    assert (groups[0].killed, groups[0].ended) == (True, True)
    made.reset_config(config())
    step(made, Progress(1))
    assert len(groups) == 2


@pytest.mark.parametrize("reply", [TrialFailed("loss/kd is not finite"), AttemptEnded("full", "memory", ("a",))])
def test_a_verdict_and_a_full_device_leave_the_process_up(reply: Any, groups: list[Pretended]) -> None:
    made = actor()
    step(made, reply)
    made.reset_config(config())
    step(made, Progress(1))
    assert len(groups) == 1


def test_the_ranks_of_a_full_device_wait_for_it_and_are_ended(groups: list[Pretended]) -> None:
    step(actor(workers=2), AttemptEnded("full", "memory", ("a",)))
    assert groups[0].killed


def test_a_trial_that_avoids_the_group_s_node_gets_another_group(groups: list[Pretended]) -> None:
    made = actor()
    step(made, Progress(1))
    made.reset_config(config(avoid=("a",)))
    assert made.step()["nodes"] == ("b",)
    assert groups[0].stopped
    made.reset_config(config(avoid=("a",)))
    made.step()
    assert len(groups) == 2


@pytest.mark.parametrize(("gpus", "whole"), [(0.5, 1.0), (2.0, 2.0)])
def test_a_trial_that_needs_a_device_alone_gets_a_whole_one_and_no_other_does(
    gpus: float, whole: float, groups: list[Pretended]
) -> None:
    made = actor(gpus=gpus)
    for alone in (True, False):
        made.reset_config(config(gpus=gpus, alone=alone))
        step(made, Progress(1))
    assert groups[0].placement.gpus == whole
    assert groups[-1].placement.gpus == gpus


def test_workers_that_cannot_be_ended_end_with_the_actor(
    groups: list[Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pretended, "ended", False)
    with pytest.raises(RuntimeError, match="cannot be ended"):
        step(actor(), WorkersHungError("slow"))


def test_a_place_that_is_waited_for_is_told_from_workers_that_died() -> None:
    """Ray Train wraps both into errors of its controller."""
    from ray.train import ControllerError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError

    from kdsearch.engine.worker_group import _is_without_place

    assert _is_without_place(ControllerError(WorkerGroupStartupTimeoutError(1)))
    assert not _is_without_place(ControllerError(WorkerGroupStartupFailedError("a worker died")))
    assert not _is_without_place(None)
