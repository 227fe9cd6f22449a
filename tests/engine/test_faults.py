"""Whose fault a failed attempt is, decided without a cluster."""

from __future__ import annotations

import pytest

from kdsearch.engine.cluster import Node
from kdsearch.engine.faults import NODE_TRIALS, SAME_ERROR, Faults
from kdsearch.engine.messages import AttemptEnded, Placement

Nodes = dict[str, Node]


def node(name: str, gpus: float = 0.0) -> Node:
    return Node(1.0, gpus, 2**40, id=name, name=f"address of {name}")


@pytest.fixture
def nodes() -> Nodes:
    """The living nodes; a test may change them."""
    return {name: node(name) for name in ("a", "b")}


def faults(nodes: Nodes, max_failures: int = 5) -> Faults:
    return Faults(Placement(), max_failures, lambda: nodes)


def raised(where: str, reason: str = "RuntimeError: CUDA error: an illegal memory access") -> AttemptEnded:
    return AttemptEnded(reason, "error", (where,))


def died(where: str) -> AttemptEnded:
    return AttemptEnded("the workers died", "died", (where,))


def test_an_exception_moves_a_trial_to_another_process_and_is_no_verdict(nodes: Nodes) -> None:
    ledger = faults(nodes)
    assert ledger.on_attempt_ended("t0000", raised("a")).action == "again"


def test_the_same_exception_in_several_processes_is_the_configuration_s_own(nodes: Nodes) -> None:
    ledger = faults(nodes, max_failures=20)
    actions = [
        ledger.on_attempt_ended("t0000", raised(where, f"KeyError: 'taps' at 0x7f{number:06x}")).action
        for number, where in enumerate("aab")
    ]
    assert actions == ["again", "later", "fail"]
    assert len(actions) == SAME_ERROR


def test_the_last_attempt_is_on_another_node_where_there_is_one(nodes: Nodes) -> None:
    ledger = faults(nodes)
    ledger.on_attempt_ended("t0000", raised("a"))
    assert ledger.avoid("t0000") == ()
    # Later: resident workers hold the other places as long as there are trials.
    assert ledger.on_attempt_ended("t0000", raised("a")).action == "later"
    assert ledger.avoid("t0000") == ("a",)
    assert ledger.avoid("t0001") == ()
    del nodes["b"]
    assert ledger.avoid("t0000") == ()


def test_without_another_node_the_last_attempt_is_at_once(nodes: Nodes) -> None:
    del nodes["b"]
    ledger = faults(nodes)
    assert [ledger.on_attempt_ended("t0000", raised("a")).action for _ in range(3)] == ["again", "again", "fail"]


def test_restarts_without_progress_are_bounded_and_an_epoch_clears_them(nodes: Nodes) -> None:
    ledger = faults(nodes, max_failures=2)
    for epoch in range(1, 20):
        assert ledger.on_attempt_ended("t0000", died("a")).action == "again"
        ledger.on_progress("t0000", epoch, ("a",))
    ledger.on_attempt_ended("t0000", died("a"))
    ledger.on_progress("t0000", 19, ("a",))  # the epoch of its checkpoint, reported again
    assert ledger.on_attempt_ended("t0000", died("a")).action == "later"
    assert ledger.on_attempt_ended("t0000", died("b")).action == "fail"


def test_a_trial_whose_node_has_gone_is_not_blamed(nodes: Nodes) -> None:
    ledger = faults(nodes, max_failures=1)
    for number in range(20):
        nodes[f"lost{number}"] = node(f"lost{number}")
        del nodes[f"lost{number}"]
        assert ledger.on_attempt_ended("t0000", died(f"lost{number}")).action == "again"


def test_waiting_for_a_place_is_no_failure_and_one_line(nodes: Nodes) -> None:
    ledger = faults(nodes, max_failures=0)
    no_room = AttemptEnded("the cluster has no room for 1 worker(s) with 1 CPU and 0 GPU each", "place")
    decisions = [ledger.on_attempt_ended("t0000", no_room) for _ in range(1000)]
    assert {decision.action for decision in decisions} == {"wait"}
    assert decisions[0].message.startswith("t0000 waits: the cluster has no room for 1 worker(s)")
    assert {decision.message for decision in decisions[1:]} == {""}
    ledger.on_progress("t0000", 1, ("a",))
    assert ledger.on_attempt_ended("t0000", no_room).message


def test_a_neighbour_s_memory_sends_the_trial_to_a_device_of_its_own(nodes: Nodes) -> None:
    ledger = faults(nodes, max_failures=0)
    full = AttemptEnded("out of device memory at batch size 8", "memory", ("a",))
    decision = ledger.on_attempt_ended("t0000", full)
    assert decision.action == "later"
    assert "t0000 is tried again alone on a device" in decision.message
    assert ledger.alone("t0000")
    assert not ledger.alone("t0001")
    assert ledger.suspects() == frozenset()


def test_a_device_that_somebody_else_fills_is_tried_again_and_then_named(nodes: Nodes) -> None:
    ledger = faults(nodes, max_failures=1)
    full = AttemptEnded("out of device memory, of which other processes hold 70 GB", "memory", ("a",))
    assert [ledger.on_attempt_ended("t0000", full).action for _ in range(3)] == ["later", "later", "fail"]


def test_a_node_on_which_trial_after_trial_fails_is_avoided_and_named(nodes: Nodes) -> None:
    ledger = faults(nodes)
    for number in range(NODE_TRIALS - 1):
        assert not ledger.on_attempt_ended(f"t{number:04d}", raised("a", f"OSError: {number}")).message
    assert ledger.suspects() == frozenset()
    message = ledger.on_attempt_ended("t0009", raised("a", "OSError: Stale file handle")).message
    assert message == (
        "3 trials in a row (t0000, t0001, t0009) failed on node address of a, the last with: OSError: Stale file "
        "handle; the node is avoided from now on: mend it or take it out of the cluster"
    )
    assert ledger.suspects() == {"a"}
    assert ledger.avoid("t0042") == ("a",)


def test_what_happened_on_an_avoided_node_does_not_count_against_a_trial(nodes: Nodes) -> None:
    ledger = faults(nodes, max_failures=2)
    ledger.on_attempt_ended("t0000", raised("a"))
    for trial in ("t0001", "t0002"):
        ledger.on_attempt_ended(trial, raised("a"))
    assert ledger.suspects() == {"a"}
    assert [ledger.on_attempt_ended("t0000", raised("b")).action for _ in range(3)] == ["again", "again", "fail"]


def test_one_trial_that_fails_again_and_again_does_not_condemn_its_node(nodes: Nodes) -> None:
    ledger = faults(nodes, max_failures=50)
    for number in range(10):
        assert not ledger.on_attempt_ended("t0000", raised("a", f"error {'x' * number}")).message
    assert ledger.suspects() == frozenset()


def test_an_epoch_that_is_trained_on_a_node_clears_it(nodes: Nodes) -> None:
    ledger = faults(nodes)
    for number in range(2):
        ledger.on_attempt_ended(f"t{number}", raised("a"))
    ledger.on_progress("t7", 1, ("a",))
    assert not ledger.on_attempt_ended("t2", raised("a")).message


def test_the_only_node_is_named_and_stays_in_use(nodes: Nodes) -> None:
    del nodes["b"]
    ledger = faults(nodes)
    messages = [ledger.on_attempt_ended(f"t{number}", raised("a")).message for number in range(3)]
    assert "there is no other node for them: mend it, then --resume" in messages[2]
    assert ledger.suspects() == frozenset()
    assert ledger.avoid("t3") == ()
    nodes["c"] = node("c")
    assert ledger.avoid("t3") == ("a",)
