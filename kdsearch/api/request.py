"""What a user asks of a study: the request, and the run folder and the space that it means."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdsearch.cli.space_options import requested_space
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.evolution.space_versions import space_to_go_on_with


@dataclass(frozen=True)
class Request:
    """What the command line asks for; see `kdsearch run --help`."""

    space: str
    data: tuple[str, str] | None = None
    profile: str | None = None
    overrides: Sequence[str] = ()
    trials: int | None = None
    name: str | None = None
    resume: bool = False
    extend: str | None = None
    warm_start: Sequence[str] = ()
    storage: str = "runs"
    tracking_uri: str | None = None
    address: str | None = None
    workers_per_trial: int = 1
    gpus_per_worker: float | None = None
    max_concurrent: int | None = None
    grow_to: int | None = None
    confirm: bool = True
    latency: str | None = None


def run_folder_of(request: Request) -> RunFolder:
    """The run folder asked for: a new one, or with `resume` the one named or the latest of this space."""
    space_name = Path(request.space).stem
    if request.resume and request.name is None:
        folders = sorted(Path(request.storage).expanduser().glob(f"{space_name}-*/space.yaml"), key=os.path.getmtime)
        if not folders:
            raise UserError(f"There is no study of {space_name} to resume in {request.storage}; name it with --name.")
        return RunFolder.at(request.storage, folders[-1].parent.name)
    name = time.strftime(f"{space_name}-%Y%m%d-%H%M%S") if request.name is None else request.name
    run = RunFolder.at(request.storage, name)
    if request.resume and not run.space.exists():
        raise UserError(f"There is no study to resume in {run.path}; check --storage and --name, or drop --resume.")
    if not request.resume and run.journal.exists():
        raise UserError(f"{run.path} holds a study already; add --resume to go on, or give another --name.")
    return run


def space_of(request: Request, run: RunFolder) -> SearchSpace:
    trials = [] if request.trials is None else [f"search.trials={request.trials}"]
    if not request.resume:
        if request.extend:
            raise UserError(f"--extend {request.extend}: only a study that goes on is extended; add --resume.")
        overrides = [*request.overrides, *trials]
        return requested_space(request.space, request.profile, overrides, request.data, latency=request.latency)
    if request.latency:
        raise UserError("A resumed study keeps the device of its latencies: leave --latency out.")
    if request.profile or request.data:
        raise UserError("A resumed study keeps its data set: leave --profile and --data out.")
    if request.warm_start:
        raise UserError("--warm-start belongs to the start of a study: leave it out, or start a new one.")
    return space_to_go_on_with(run, request.extend, [*request.overrides, *trials])
