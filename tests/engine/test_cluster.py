from __future__ import annotations

import itertools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.engine import cluster
from kdsearch.engine.cluster import (
    GROUP_MEMORY,
    Node,
    check_batches,
    check_fits,
    connected,
    place,
    slots,
    threads_here,
    trials_that_fit,
)
from kdsearch.engine.messages import Placement
from kdsearch.engine.slots import Slots
from kdsearch.errors import UserError
from tests.search.conftest import SPACE

PLENTY = 1000 * GROUP_MEMORY


def gpus(count: float, cpus: float = 64) -> Node:
    return Node(cpus, count, PLENTY)


@pytest.mark.parametrize(
    ("placement", "nodes", "trials"),
    [
        (Placement(1, 1.0, 0.0), [Node(2, 0, PLENTY), Node(3, 0, PLENTY)], 5),
        (Placement(2, 1.0, 0.0), [Node(3, 0, PLENTY), Node(3, 0, PLENTY)], 3),  # one trial lies on both nodes
        (Placement(1, 1.0, 0.5), [gpus(4)], 8),
        (Placement(1, 1.0, 0.1), [gpus(1)], 10),  # 1 // 0.1 is 9
        (Placement(1, 1.0, 0.4), [gpus(4)], 8),  # 2 on each, what is left of two GPUs is no share of one
        (Placement(3, 1.0, 0.5), [gpus(1), gpus(1), gpus(1)], 2),
        (Placement(1, 1.0, 2.0), [gpus(3), gpus(1)], 1),
        (Placement(1, 1.0, 1.0), [Node(64, 0, PLENTY), gpus(2)], 2),  # a head node without GPUs holds none
        (Placement(1, 1.0, 0.5), [gpus(4, cpus=3)], 3),
        (Placement(1, 1.0, 0.0), [Node(64, 0, 3 * GROUP_MEMORY), Node(2, 0, 0.5 * GROUP_MEMORY)], 3),
        (Placement(1, 1.0, 1.0), [Node(8, 0, PLENTY)], 0),
    ],
)
def test_what_fits_is_counted_node_by_node(placement: Placement, nodes: list[Node], trials: int) -> None:
    assert trials_that_fit(placement, nodes) == trials


@pytest.fixture
def ray_nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `ray.nodes` answers; a test may change it."""
    nodes: list[dict[str, Any]] = []
    monkeypatch.setattr("ray.nodes", lambda: list(nodes))
    cluster._nodes_in.cache_clear()
    return nodes


NUMBERS = itertools.count()


def machine(alive: bool = True, **resources: float) -> dict[str, Any]:
    name = f"node{next(NUMBERS)}"
    return {"NodeID": name, "NodeManagerAddress": name, "Alive": alive, "Resources": {"memory": PLENTY, **resources}}


def test_slots_follow_the_cluster_and_are_counted_once_a_second(
    ray_nodes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    ray_nodes.append(machine(CPU=2))
    assert slots(Placement()) == 2
    ray_nodes.append(machine(CPU=4))
    assert slots(Placement()) == 2
    now[0] += 1
    assert slots(Placement()) == 6
    ray_nodes[1]["Alive"] = False
    now[0] += 1
    assert slots(Placement()) == 2
    ray_nodes.clear()
    now[0] += 1
    assert slots(Placement()) == 1  # one trial waits for the next node


def test_nodes_that_are_avoided_have_no_slots(ray_nodes: list[dict[str, Any]]) -> None:
    ray_nodes += [machine(CPU=2), machine(CPU=4)]
    assert slots(Placement(), {ray_nodes[1]["NodeID"]}) == 2
    avoided: list[set[str]] = [{ray_nodes[1]["NodeID"]}]
    changes: list[int] = []
    count = Slots(Placement(), 1, 100, changes.append, lambda: avoided[-1])
    avoided.append(set())
    assert count() == 6
    assert changes == [6]


def test_a_teacher_s_threads_are_those_of_its_machine(
    ray_nodes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cluster of 4 nodes with 8 cores each, one machine has 8."""
    ray_nodes += [machine(CPU=8) for _ in range(4)]
    context = SimpleNamespace(get_node_id=lambda: ray_nodes[2]["NodeID"])
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    assert slots(Placement()) == 32
    assert threads_here(32, ranks=1) == 8
    assert threads_here(32, ranks=2) == 4
    assert threads_here(1, ranks=8) == 1
    assert threads_here(3, ranks=16) == 1


def test_a_trial_that_does_not_fit_is_refused_with_what_there_is(ray_nodes: list[dict[str, Any]]) -> None:
    ray_nodes += [machine(CPU=4, GPU=1), machine(CPU=64), machine(alive=False, CPU=64, GPU=8)]
    check_fits(Placement(2, 1.0, 0.5))
    with pytest.raises(UserError, match=r"needs 3 worker\(s\) with 1 CPU and 0.5 GPU each.*can hold 2; lower"):
        check_fits(Placement(3, 1.0, 0.5))


def test_a_gpu_is_taken_where_there_is_one(ray_nodes: list[dict[str, Any]]) -> None:
    ray_nodes.append(machine(CPU=4))
    assert place(1, None).gpus == 0
    ray_nodes.append(machine(CPU=4, GPU=1))
    assert place(1, None).gpus == 1
    assert place(2, 0.5) == Placement(2, 1.0, 0.5)
    for wrong in (1.5, -1.0):
        with pytest.raises(UserError, match="give a share of one GPU"):
            place(1, wrong)


def space(tmp_path: Path, train: str) -> SearchSpace:
    text = SPACE.replace("epochs: 4}", f"epochs: 4, {train}}}").replace(
        "encoder: resnet50}", "encoder: resnet50, train: {batch_size: 8}}"
    )
    (tmp_path / "toy.yaml").write_text(text)
    return load_space(tmp_path / "toy.yaml")


def test_batch_sizes_divide_over_the_ranks_before_anything_starts(tmp_path: Path) -> None:
    check_batches(space(tmp_path, "batch_size: 8"), 4)
    check_batches(space(tmp_path, "batch_size: {choice: [4, 8]}"), 4)
    with pytest.raises(UserError, match=r"^train.batch_size 6 does not divide over 4 workers a trial: use 4, or"):
        check_batches(space(tmp_path, "batch_size: 6"), 4)
    with pytest.raises(UserError, match=r"train.batch_size 2, 6 does not .* use 4, or another"):
        check_batches(space(tmp_path, "batch_size: {choice: [8, 2, 6]}"), 4)
    with pytest.raises(UserError, match=r"train.batch_size 5, 7, 9 does not .* use {choice: \[4, 6, 8\]}"):
        check_batches(space(tmp_path, "batch_size: {int: [4, 9]}"), 2)
    with pytest.raises(UserError, match=r"^teacher.train.batch_size 8 does not divide over 16"):
        check_batches(space(tmp_path, "batch_size: 16"), 16)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [(None, "Ray could not be started here (timed out during startup); try again"), ("auto", "No Ray cluster answers")],
)
def test_a_ray_that_does_not_start_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, address: str | None, sentence: str
) -> None:
    def slow(**options: Any) -> None:
        raise Exception("the node\ntimed out during startup")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", slow)
    with pytest.raises(UserError, match=re.escape(sentence)), connected(address):
        pass
