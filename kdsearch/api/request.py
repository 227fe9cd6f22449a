"""The request of a study: every option of `kdsearch.search` and `kdsearch run`, and the run folder that it means."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsearch.api.space import Space, as_space, parse_data
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.evolution.space_versions import space_of_resumed_study


def requested_space(
    source: str | Path | Mapping[str, Any] | Space,
    *,
    data: str | None = None,
    profile: str | None = None,
    latency: str | None = None,
    resume: bool = False,
) -> Space | str:
    """The space that a request names; with `resume` perhaps its name alone, since a resumed study keeps its own."""
    if resume:
        if latency:
            raise UserError("A resumed study keeps the device of its latencies: leave --latency out.")
        if profile:
            raise UserError("A resumed study keeps its space: leave --profile out.")
        if isinstance(source, str | Path):
            return str(source)
        if isinstance(source, Space):
            return source  # `data` is the place of its data set now
    return as_space(source, data=data, profile=profile, latency=latency)


def check_numbers(**values: float | None) -> None:
    """Raise `UserError` for a value that is not positive, each under the name of its argument; None is left out."""
    for name, value in values.items():
        if value is not None and not value > 0:  # NaN is not positive either
            raise UserError(f"--{name.replace('_', '-')} {value:g}: give a positive number.")


@dataclass(frozen=True)
class StudyRequest:
    """See `kdsearch.search` for the meaning of each field; `overrides` are the `KEY=VALUE` of `--set`.

    `space` is that of `requested_space`; `data` matters for a resumed study alone, whose data set may have moved.
    """

    space: Space | str
    overrides: Sequence[str] = ()
    trials: int | None = None
    time_limit: float | None = None
    name: str | None = None
    resume: bool = False
    data: str | None = None
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

    def __post_init__(self) -> None:
        check_numbers(
            trials=self.trials, time_limit=self.time_limit, workers_per_trial=self.workers_per_trial,
            max_concurrent=self.max_concurrent, grow_to=self.grow_to,
        )  # fmt: skip

    @property
    def space_name(self) -> str:
        """The name that the run folder begins with: of the file, or of the space itself."""
        return self.space.source_name if isinstance(self.space, Space) else Path(self.space).stem

    def run_folder(self) -> RunFolder:
        """The run folder: a new one, or with `resume` the one named, or the latest of this space."""
        if self.resume and self.name is None:
            pattern = f"{self.space_name}-*/space.yaml"
            folders = sorted(Path(self.storage).expanduser().glob(pattern), key=os.path.getmtime)
            if not folders:
                raise UserError(
                    f"There is no study of {self.space_name} to resume in {self.storage}; name it with --name."
                )
            return RunFolder.at(self.storage, folders[-1].parent.name)
        name = time.strftime(f"{self.space_name}-%Y%m%d-%H%M%S") if self.name is None else self.name
        run = RunFolder.at(self.storage, name)
        if self.resume and not run.space.exists():
            raise UserError(f"There is no study to resume in {run.path}; check --storage and --name, or drop --resume.")
        if not self.resume and run.journal.exists():
            raise UserError(f"{run.path} holds a study already; add --resume to continue it, or give another --name.")
        return run

    def search_space(self, run: RunFolder) -> SearchSpace:
        """The space of the study: as requested, or with `resume` the study's own with the changes requested."""
        overrides = [*self.overrides, *([] if self.trials is None else [f"search.trials={self.trials}"])]
        if not self.resume:
            if self.extend:
                raise UserError(f"--extend {self.extend}: only a resumed study is extended; add --resume.")
            assert isinstance(self.space, Space), "only a resumed study may have a name instead of a space"
            space = self.space.with_overrides(overrides).search_space
            space.check_effects()
            return space
        if self.warm_start:
            raise UserError("--warm-start belongs to the start of a study: leave it out, or start a new one.")
        data = parse_data(self.data)
        if isinstance(self.space, Space) and data is None:
            wanted = self.space.default().data
            data = None if wanted.path is None else (wanted.name, wanted.path)
        return space_of_resumed_study(run, self.extend, overrides, data)
