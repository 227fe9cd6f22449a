"""The functions of the library beside `kdsearch.search`: `load_study`, `plan` and `train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.api.request import check_numbers
from kdsearch.api.space import Space, as_overrides, as_space
from kdsearch.config.trial import TrialConfig
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder

if TYPE_CHECKING:
    from kdsearch.api.study import Study
    from kdsearch.models.student import Student
    from kdsearch.planning.result import Plan

Log = Callable[[str], None]


def _quiet(line: str) -> None:
    """The default of `log=`: nothing is printed."""


def load_study(run: str | Path, *, tracking_uri: str | None = None) -> Study:
    """The study in a run folder, which may still be running.

    `run` may also be `runs:/ID`, the run of a study on the MLflow server at `tracking_uri` (or MLFLOW_TRACKING_URI):
    its run folder is found by the path that the server has of it. `UserError` where there is no study.
    """
    from kdsearch.api.study import Study

    if str(run).startswith("runs:/"):
        from kdsearch.tracking.mlflow.reader import run_folder_of

        run = run_folder_of(str(run), tracking_uri)
    elif tracking_uri is not None:
        raise UserError("tracking_uri goes with runs:/ID; a run folder needs none.")
    folder = RunFolder(Path(run).expanduser().resolve())
    if not (folder.space.is_file() and folder.journal.is_file()):
        raise UserError(f"There is no study in {folder.path}; name a run folder, such as runs/clfd-20260101-120000.")
    return Study(folder)


def plan(
    space: str | Path | Mapping[str, Any] | Space,
    *,
    data: str | None = None,
    profile: str | None = None,
    latency: str | None = None,
    set: Mapping[str, Any] | None = None,
    trials: int | None = None,
    workers_per_trial: int = 1,
    gpus_per_worker: float | None = None,
    max_concurrent: int | None = None,
    confirm: bool = True,
    storage: str | Path = "runs",
    seconds: float = 300.0,
    seconds_per_trial: float = 120.0,
    log: Log = _quiet,
) -> Plan:
    """The cost of a study in hours, bytes and memory, from a few measured steps; nothing is started or kept.

    The arguments are those of `kdsearch.search`. `seconds` bounds the whole measurement, `seconds_per_trial` that of
    one trial. `.to_dict()` of the result gives plain values, times in seconds. Raises `UserError` for a space that
    could not be trained.
    """
    from kdsearch.compat import ensure_torchvision

    ensure_torchvision()
    from kdsearch.planning.plan import PlanRequest, make_plan

    check_numbers(
        trials=trials, workers_per_trial=workers_per_trial, slots=max_concurrent, seconds=seconds,
        limit=seconds_per_trial,
    )  # fmt: skip
    space = as_space(space, data=data, profile=profile, latency=latency)
    for note in space.notes:
        log(note)
    settings = {**(set or {}), **({} if trials is None else {"search.trials": trials})}
    space = space.with_overrides(as_overrides(settings))
    request = PlanRequest(
        workers_per_trial, gpus_per_worker, max_concurrent, confirm, Path(storage), seconds, seconds_per_trial
    )
    space.search_space.check_effects()
    return make_plan(space.search_space, request, log)


def train(
    trial: TrialConfig | Mapping[str, Any] | str | Path,
    *,
    out: str | Path,
    storage: str | Path = "runs",
    log: Log = _quiet,
) -> Student:
    """Train one trial in this process, without Ray, and write its student to the folder `out`.

    `trial` is a configuration, a dictionary of that structure, or a YAML file (every exported bundle has one). Its
    teacher is trained first unless it exists in `storage`. Raises `UserError` for a trial that cannot be trained.
    """
    from kdsearch.compat import ensure_torchvision

    ensure_torchvision()
    from kdsearch.config.space.effects import check_effects
    from kdsearch.config.space.trial_file import load_trial, trial_from_dict
    from kdsearch.models.student import load_student
    from kdsearch.train.standalone import train_standalone

    if isinstance(trial, Mapping):
        config = trial_from_dict(trial)
    elif isinstance(trial, TrialConfig):
        config = trial
    else:
        config = load_trial(trial)
    check_effects(config)
    train_standalone(config, RunFolder.at(str(storage), "alone"), Path(out), log)
    return load_student(out)
