"""Connecting to Ray, and what fits on the cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from kdsearch.errors import UserError
from kdsearch.search.workers import Placement

GROUP_MEMORY = 2 * 1024**3
"""Bytes that the processes of one worker group take before any data: many cores with little memory run fewer trials
at once."""

QUIET = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one actor less per worker group
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow and the run folder keep the results
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # several objectives: there is no one metric
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the study has its own, for SIGTERM too
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # the study's journal is the state; Tune's is never read
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Settings of Ray that a study needs; what the user has set in the environment wins."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Ray, for the time of a study: the cluster at `address`, the one this process was submitted to, or a local one."""
    import ray

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    target = address or os.environ.get("RAY_ADDRESS")
    try:
        if target:
            ray.init(address=target, log_to_driver=False, logging_level="error")
        else:
            ray.init(address="local", log_to_driver=False, logging_level="error", include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"No Ray cluster answers at {target or 'this machine'} ({_last_line(error)}); check --address, "
            "or leave it out to start Ray here."
        ) from error
    if not target:
        # With several local clusters on a machine, Ray's helper actors must be told which one is theirs.
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    try:
        yield
    finally:
        ray.shutdown()
        if not target:
            os.environ.pop("RAY_ADDRESS", None)


def place(workers: int, gpus: float | None) -> Placement:
    """What one trial occupies. Without `gpus`, a whole GPU a worker where the cluster has any, else a CPU core."""
    import ray

    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
    return Placement(workers=workers, cpus=1.0, gpus=gpus)


def slots(placement: Placement) -> int:
    """How many trials to run at once: what cores, GPUs and memory hold. `UserError` when not even one fits."""
    import ray

    free = [
        {name: node["Resources"].get(name, 0.0) for name in ("CPU", "GPU", "memory")}
        for node in ray.nodes()
        if node["Alive"]
    ]
    workers = sum(
        int(min(node["CPU"] // placement.cpus, node["GPU"] // placement.gpus if placement.gpus else float("inf")))
        for node in free
    )
    if workers < placement.workers:
        have = ", ".join(f"{node['CPU']:g} CPU + {node['GPU']:g} GPU" for node in free)
        raise UserError(
            f"A trial needs {placement.workers} worker(s) with {placement.cpus:g} CPU and {placement.gpus:g} GPU each, "
            f"but the cluster ({have}) can hold {workers}; lower --workers-per-trial or --gpus-per-worker."
        )
    by_memory = sum(int(node["memory"] // GROUP_MEMORY) for node in free)
    return max(1, min(workers // placement.workers, by_memory))


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
