"""The students of a frontier in MLflow's model registry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdsearch.search.choice import choose
from kdsearch.search.summary import FrontierPoint
from kdsearch.tracking.mlflow.escaping import model_name

if TYPE_CHECKING:
    from mlflow import MlflowClient


def aliases(frontier: Sequence[FrontierPoint], cost: str = "gflops") -> dict[str, str]:
    """Alias to trial: `best-miou`, `knee`, and `mflops-le-620` for the most accurate one within 620 MFLOPs.

    The budgets are the members' own costs, rounded up to two digits. A study that measured latency has aliases such as
    `us-le-4300` too, for microseconds. `cost` is what the knee goes by.
    """
    if not frontier:
        return {}
    named = {best: choose(frontier, best, cost=cost)[0].trial for best in ("miou", "knee")}
    found = {"best-miou": named["miou"], "knee": named["knee"]}
    for point in frontier:
        mflops = round_up(1000 * point.gflops)
        found[f"mflops-le-{mflops}"] = choose(frontier, "miou", f"gflops<={mflops / 1000:.6f}")[0].trial
        if point.latency_ms is not None:
            us = round_up(1000 * point.latency_ms)
            found[f"us-le-{us}"] = choose(frontier, "miou", f"latency_ms<={us / 1000:.6f}")[0].trial
    return found


def round_up(number: float) -> int:
    """The least integer of two digits and zeros that is not below `number`; at least 1."""
    step: int = 10 ** max(0, math.floor(math.log10(max(number, 1))) - 1)
    return max(1, math.ceil(number / step) * step)


def register(
    client: MlflowClient, study: str, frontier: Sequence[FrontierPoint], runs: Mapping[str, str], cost: str = "gflops"
) -> None:
    """One version for each member of the frontier, its source the artifacts `student` of the trial's run, and aliases.

    `runs` maps trials to run ids. The aliases name what `kdsearch export` chooses in the whole frontier; one of a
    student without a run is left out, not given to another. Called again it adds what is new and moves them. No model
    is logged: MLflow's flavours pickle, or need the library's code to load; the source is safetensors and JSON.
    """
    from mlflow.exceptions import MlflowException

    name = model_name(study)
    members = [point for point in frontier if point.trial in runs]
    if not members:
        return
    try:
        known = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = client.create_registered_model(name, description=f"Students on the frontier of the study {study}.")
    versions = {version.run_id: version.version for version in client.search_model_versions(f"name = '{name}'")}
    for point in members:
        run_id = runs[point.trial]
        if run_id not in versions:
            tags = {"kdsearch.trial": point.trial, "kdsearch.study": study}
            made = client.create_model_version(name, f"runs:/{run_id}/student", run_id, tags=tags)
            versions[run_id] = made.version
    named = aliases(frontier, cost)
    wanted = {alias: versions[runs[trial]] for alias, trial in named.items() if trial in runs}
    for alias in set(known.aliases) - set(wanted):
        client.delete_registered_model_alias(name, alias)
    for alias, version in wanted.items():
        client.set_registered_model_alias(name, alias, version)
