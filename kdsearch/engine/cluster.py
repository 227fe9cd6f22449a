"""Connecting to Ray, and what fits on the cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from kdsearch.config.space.ranges import Choice, Int, IntLog
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.engine.address import cluster_of, no_cluster
from kdsearch.engine.messages import Placement
from kdsearch.errors import UserError

GROUP_MEMORY = 2 * 1024**3
"""Bytes that the processes of one worker group take before any data: many cores with little memory run fewer trials
at once."""

QUIET = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one actor less per worker group
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",  # a study reports to its user alone
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow and the run folder keep the results
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # several objectives: there is no one metric
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the command line has its own, for SIGTERM too
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # the study's journal is the state; Tune's is never read
    # The controller bounds the trials in flight. Tune's own limit for searchers is 1 pending trial: of trials that end
    # at the same moment it would end the actors of all but one or two, and start new ones.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output prints a table of Tune's settings even where verbose is 0
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Settings of Ray that a study needs; what the user has set in the environment wins."""


@contextmanager
def connected(address: str | None) -> Iterator[bool]:
    """Ray, for the time of a study. Yields whether the connection ends with the study.

    A Ray that runs in this process already is used and left running. Otherwise it is the cluster at `address`, the one
    this process was submitted to (`RAY_ADDRESS`), or a local one that ends with the study.
    """
    import ray

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    _nodes_in.cache_clear()
    if ray.is_initialized():
        yield False
        return
    target, origin = cluster_of(address)
    try:
        if target:
            ray.init(address=target, log_to_driver=False, logging_level="error")
        else:
            ray.init(address="local", log_to_driver=False, logging_level="error", include_dashboard=False)
    except Exception as error:  # Ray raises a plain Exception where nodes do not register in time
        if target:
            raise no_cluster(target, origin, _last_line(error)) from error
        remedy = "try again, perhaps with less running on this machine"
        raise UserError(f"Ray could not be started here ({_last_line(error)}); {remedy}.") from error
    if not target:
        # With several local clusters on a machine, Ray's helper actors have to be given the address of theirs.
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    try:
        yield True
    finally:
        ray.shutdown()
        if not target:
            os.environ.pop("RAY_ADDRESS", None)


@dataclass(frozen=True)
class Node:
    """What a machine has to give: CPU cores, GPUs, bytes of memory. `id` is Ray's, `name` its address."""

    cpus: float
    gpus: float
    memory: float
    id: str = ""
    name: str = ""


def place(workers: int, gpus: float | None) -> Placement:
    """What one trial occupies. Without `gpus`, a whole GPU a worker where the cluster has any, else a CPU core.

    Ranks that have whole GPUs exchange gradients by NCCL, others by gloo: NCCL refuses two ranks on one GPU.
    """
    check_share(gpus)
    if gpus is None:
        gpus = 1.0 if any(node.gpus >= 1 for node in _nodes()) else 0.0
    return Placement(workers=workers, cpus=1.0, gpus=gpus)


def check_share(gpus: float | None) -> None:
    """Raise `UserError` unless a rank can have `gpus` GPUs; None leaves the choice to the cluster."""
    if gpus is not None and not (0 <= gpus <= 1 or gpus in range(2, 1025)):
        raise UserError(f"--gpus-per-worker {gpus:g}: give a share of one GPU (0.5), whole GPUs (1, 2), or 0 for none.")


def ranks_alone(workers: int, gpus: float | None, address: str | None) -> int:
    """The ranks of a trial that certainly normalise their part of the batch alone, before a cluster is connected.

    On GPUs all ranks normalise together; whether a cluster has any is known once it is connected.
    """
    import torch

    local = cluster_of(address)[0] is None
    return workers if gpus == 0 or (gpus is None and local and not torch.cuda.is_available()) else 1


def slots(placement: Placement, avoided: Collection[str] = ()) -> int:
    """How many trials to run at once on the cluster as it is now: what its cores, GPUs and memory hold, at least one.

    Nodes whose ids are in `avoided` do not count. Safe to ask at every turn, see `living_nodes`. While no trial fits,
    since nodes have gone, it is 1: that trial waits for the next node.
    """
    return max(1, trials_that_fit(placement, [node for id, node in living_nodes().items() if id not in avoided]))


def living_nodes() -> dict[str, Node]:
    """The living nodes by their id; the cluster is looked at once a second at most."""
    return {node.id: node for node in _nodes_in(int(time.monotonic()))}


def threads_here(wanted: int, ranks: int) -> int:
    """CPU threads for a rank that may use `wanted`: no more than its share, among `ranks`, of this machine's cores."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    cpus = next((node.cpus for node in _nodes() if node.id == here), float(wanted))
    return max(1, min(wanted, int(cpus) // ranks))


def check_fits(placement: Placement) -> None:
    """Raise `UserError` unless one trial fits on the cluster."""
    nodes = _nodes()
    workers = sum(ranks_that_fit(placement, node) for node in nodes)
    if workers >= placement.workers:
        return
    have = ", ".join(f"{node.cpus:g} CPU + {node.gpus:g} GPU" for node in nodes)
    raise UserError(
        f"A trial needs {placement.workers} worker(s) with {placement.cpus:g} CPU and {placement.gpus:g} GPU each, "
        f"but the cluster ({have}) can hold {workers}; lower --workers-per-trial or --gpus-per-worker, or, where the "
        "cluster adds nodes by itself, say with --grow-to how many trials at a time it should come to hold."
    )


def check_batches(space: SearchSpace, workers: int) -> None:
    """Raise `UserError` unless every batch size of the space, the teacher's too, divides over the ranks of a trial."""
    default = space.default().trial
    sizes = {"train.batch_size": [default.train.batch_size]}
    if default.teacher is not None and default.teacher.checkpoint is None and space.distils():
        sizes["teacher.train.batch_size"] = [default.teacher.train.batch_size]
    for name, domain in space.parameters().items():
        if not name.startswith("train"):
            continue
        if isinstance(domain, Choice):
            trials = [space.from_params({name: option}).trial for option in domain.options]
            sizes["train.batch_size"] += [trial.train.batch_size for trial in trials]
        elif name.endswith("batch_size"):
            assert isinstance(domain, Int | IntLog)
            sizes["train.batch_size"] += range(domain.low, domain.high + 1)
    for name, values in sizes.items():
        uneven = sorted({value for value in values if value % workers})
        if uneven:
            near = sorted({max(workers, value // workers * workers) for value in uneven})
            raise UserError(
                f"{name} {', '.join(map(str, uneven))} does not divide over {workers} workers a trial: use "
                f"{near[0] if len(near) == 1 else '{choice: ' + str(near) + '}'}, or another --workers-per-trial."
            )


def trials_that_fit(placement: Placement, nodes: Sequence[Node]) -> int:
    """How many trials `nodes` hold at a time; the ranks of a trial may lie on several of them."""
    ranks = sum(ranks_that_fit(placement, node) for node in nodes)
    trials = ranks // placement.workers
    groups = sum(int(node.memory // GROUP_MEMORY) for node in nodes)
    return min(trials, max(1, groups))


def ranks_that_fit(placement: Placement, node: Node) -> int:
    """Ranks that a node's cores and GPUs hold. One that has a share of a GPU has it on one GPU: 0.4 twice, not 2.5."""
    ranks = _times(node.cpus, placement.cpus)
    if placement.gpus >= 1:
        ranks = min(ranks, _times(node.gpus, placement.gpus))
    elif placement.gpus > 0:
        ranks = min(ranks, int(node.gpus) * _times(1.0, placement.gpus))
    return ranks


def _times(whole: float, part: float) -> int:
    """How often `part` goes into `whole`; 0.1 goes ten times into 1, which `1 // 0.1` denies."""
    return int(whole / part + 1e-6)


def _nodes() -> list[Node]:
    """The cluster's living nodes."""
    import ray

    found = []
    for node in ray.nodes():
        if node["Alive"]:
            cpus, gpus, memory = (float(node["Resources"].get(name, 0.0)) for name in ("CPU", "GPU", "memory"))
            found.append(Node(cpus, gpus, memory, node["NodeID"], node["NodeManagerAddress"]))
    return found


@lru_cache(maxsize=1)
def _nodes_in(second: int) -> list[Node]:
    """The nodes as they were when first asked for in that second."""
    return _nodes()


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
