"""`kdsearch.search`: run a study and return its results."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdsearch import plugins
from kdsearch.api.progress import ProgressMode, progress_callback
from kdsearch.api.request import StudyRequest, requested_space
from kdsearch.api.runner import StudyRunner
from kdsearch.api.space import Space, as_overrides
from kdsearch.api.study import Study
from kdsearch.errors import StudyFailedError, UserError
from kdsearch.search.callbacks import CallbackList, StudyCallback


def search(
    space: str | Path | Mapping[str, Any] | Space, *,
    data: str | None = None, profile: str | None = None, set: Mapping[str, Any] | None = None,
    trials: int | None = None, time_limit: float | None = None, name: str | None = None, storage: str | Path = "runs",
    resume: bool = False, extend: str | Path | None = None, warm_start: Sequence[str | Path] = (),
    confirm: bool = True, latency: str | None = None, tracking_uri: str | None = None, address: str | None = None,
    workers_per_trial: int = 1, gpus_per_worker: float | None = None, max_concurrent: int | None = None,
    grow_to: int | None = None, callbacks: Sequence[StudyCallback] = (), progress: ProgressMode | bool = "auto",
    block: bool = True,
) -> Study:  # fmt: skip
    """Search a space: train the teacher, then trial after trial, and keep the frontier of mIoU against cost.

    `space`, `data`, `profile` and `latency` are those of `Space`; `set` maps settings to values or ranges, such as
    `{"train.epochs": 40, "train.lr": kdsearch.log(1e-5, 1e-3)}`.

    `trials` is the number of trials of the search. After `time_limit` seconds no trial starts any more, and those in
    flight are the last; repeats and controls that did not start by then are left out.

    Results are kept in `storage/name`, by default a name from the space and the time. `resume` continues a study (the
    latest of this space, or `name`): its data set may lie elsewhere now (`data`) if its content is the same, a `space`
    that has changed since is refused, and `extend` is the file of an edited space to continue with. `warm_start` are
    run folders whose best trials come first. `confirm=False` leaves out repeats and controls of the frontier.

    A Ray that runs in this process is used, else the cluster at `address` or RAY_ADDRESS, else one on this machine.
    `workers_per_trial` are the DDP ranks per trial, `gpus_per_worker` the GPUs (or share of one) per rank,
    `max_concurrent` bounds the trials at a time, and `grow_to` is the number that an autoscaling cluster may grow to.

    `callbacks` follow the study (`StudyCallback`), before those of the run folder. `progress` is `"auto"` (a live table
    on a terminal, a table in a notebook, nothing elsewhere), `"console"`, `"notebook"` or `"none"`. With `block=False`
    the study runs in a thread of its own, and the returned `Study` has `wait` and `stop`.

    No file descriptor is redirected, no signal handler is installed outside the main thread, and the process does not
    exit. An interrupted study (Ctrl-C) returns with status `interrupted` and can be resumed.

    Raises `UserError` for a request that cannot be met and `StudyFailedError` where no trial could be completed.
    """
    request = StudyRequest(
        space=requested_space(space, data=data, profile=profile, latency=latency, resume=resume),
        overrides=as_overrides(set or {}), trials=trials,
        time_limit=time_limit, name=name, resume=resume, data=data, extend=None if extend is None else str(extend),
        warm_start=tuple(map(str, warm_start)), storage=str(storage), tracking_uri=tracking_uri, address=address,
        workers_per_trial=workers_per_trial, gpus_per_worker=gpus_per_worker, max_concurrent=max_concurrent,
        grow_to=grow_to, confirm=confirm,
    )  # fmt: skip
    shown = progress_callback(progress)
    return run_study(request, [*plugin_callbacks(), *callbacks, *([shown] if shown else [])], block=block)


def run_study(request: StudyRequest, callbacks: Sequence[StudyCallback], *, block: bool = True) -> Study:
    """Run the study of a request; see `search`."""
    stop = threading.Event()
    try:
        runner = StudyRunner(request, callbacks, stop)
    except BaseException:
        CallbackList(callbacks).close()
        raise
    study = Study(runner.run)
    study._stop = stop

    def execute() -> None:
        try:
            study._end = runner.execute()
            if study._end.status == "failed":
                study._error = StudyFailedError(study._end.failure, study)
        except BaseException as error:  # noqa: BLE001  raised again by `wait`
            study._error = error
        finally:
            runner.callback.close()

    if not block:
        study._thread = threading.Thread(target=execute, name=f"kdsearch {study.name}", daemon=True)
        study._thread.start()
        return study
    execute()
    return study.wait()


def plugin_callbacks() -> list[StudyCallback]:
    """One instance of each class in the `CALLBACKS` of plug-ins."""
    found: list[StudyCallback] = []
    for module, classes in plugins.collect("CALLBACKS"):
        for each in classes:
            if not (isinstance(each, type) and issubclass(each, StudyCallback)):
                raise UserError(f"plug-in {module.__name__}: CALLBACKS holds {each!r}, no StudyCallback class.")
            found.append(each())
    return found
