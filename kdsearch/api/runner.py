"""A study from request to result: check everything, train, and leave the run folder in order."""

from __future__ import annotations

import shutil
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.markup import escape

from kdsearch import plugins
from kdsearch.api.interrupt import Interrupted, interruptible
from kdsearch.api.request import Request, run_folder_of, space_of
from kdsearch.cli.exit_status import DONE, FAILED, INTERRUPTED
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.data.reader import open_reader
from kdsearch.data.store.store import Store, build_store
from kdsearch.engine.cluster import check_batches, check_fits, connected, place, slots
from kdsearch.engine.timeouts import Timeouts
from kdsearch.engine.worker_group import Placement, TrialJob
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_text
from kdsearch.io.run_folder import RunFolder
from kdsearch.report.pages import versions, write_pages
from kdsearch.search.controller import StudyController
from kdsearch.search.costs import Costs
from kdsearch.search.evolution.space_versions import keep_old_spaces
from kdsearch.search.evolution.warm_start import lines as carried_lines
from kdsearch.search.evolution.warm_start import read_earlier, warm_start
from kdsearch.search.latency.report import latency_report
from kdsearch.search.stopping.rungs import Rungs
from kdsearch.search.storage.study_storage import StudyStorage, TrialRecord
from kdsearch.search.teacher import StudyTeacher
from kdsearch.tracking.artifacts import ArtifactsCallback, Status
from kdsearch.tracking.console import ConsoleCallback
from kdsearch.tracking.mlflow.callback import MLflowCallback
from kdsearch.tracking.mlflow.client import check_own_database, check_server
from kdsearch.train.teacher_cache.plan import plan_cache

EXIT = {"done": DONE, "failed": FAILED, "interrupted": INTERRUPTED}
"""Exit status by how a study ended."""


class Ended(NamedTuple):
    """The exit status of a study (0 done, 1 failed, 130 interrupted), and where what there is stays."""

    status: int
    run: RunFolder


def run_study(request: Request) -> Ended:
    """Carry a study out.

    Raises `UserError` for a request that cannot be met.
    """
    run = run_folder_of(request)
    space = space_of(request, run)
    check_batches(space, request.workers_per_trial)
    open_reader(space.default().trial.data)  # a wrong folder is an error before anything is written
    if request.tracking_uri is not None:
        check_server(request.tracking_uri)
    is_new = not run.path.exists()
    run.create()
    if request.tracking_uri is None:
        check_own_database(run)
    training = threading.Event()
    try:
        with interruptible():
            return Ended(_run_study(request, run, space, training), run)
    except Interrupted:
        print(f"Interrupted. What there is stays in {run.path}.")
        return Ended(EXIT["interrupted"], run)
    except UserError:
        if is_new and not training.is_set():
            shutil.rmtree(run.path)
        raise


def _run_study(request: Request, run: RunFolder, space: SearchSpace, training: threading.Event) -> int:
    """`training` is set when the first trial may start: from then on the run folder holds work."""
    earlier = [read_earlier(folder) for folder in request.warm_start]
    with ExitStack() as stack:
        view = stack.enter_context(ConsoleCallback(space, run))
        store = _store(space, run, view)
        costs = Costs(space, store)
        costs.check()
        facts: dict[str, Any] = {"store": store.path.name, "versions": versions()}
        if space.search.latency is not None:
            # Before anything else runs on these machines, and before the record asks what a trial costs.
            facts["latency"] = _measure_latency(request, space, run, costs, view, stack)
        teacher = StudyTeacher(space, store, run, costs)
        planned = plan_cache((sample.trial for _, sample in space.corners()), store, run.teacher_maps, teacher.weights)
        if planned.why:
            view.say(planned.why)
        if planned.plan is not None and teacher.weights is not None:
            view.maps = partial(planned.plan.progress, teacher.config, store, teacher.weights)
        with as_a_study_wrote_it(run.journal):
            record = StudyStorage(run.journal, space, costs)
            for each in record.all():
                run.checkpoint(each.id)
        search = space.search
        with as_a_study_wrote_it(run.rungs):
            rungs = Rungs(
                search.rungs, search.objectives, search.stop, search.reduction, run.rungs, search.audit, search.seed
            )
        stack.callback(record.close)
        if record.cut:
            view.say(f"[yellow]{run.journal} ended in {record.cut} bytes of an unfinished entry; they were cut off.[/]")
        keep_old_spaces(run, record.old_spaces)
        notes = [] if record.extension is None else record.extension.lines()
        if earlier:
            notes += carried_lines(warm_start(record, space, run, earlier))
        for note in notes:
            view.say(escape(note))
            print(note, flush=True)  # to run.log
        told = [each for each in [*record.all(), *teacher.trained()] if each.state != "RUNNING"]
        tracker = stack.enter_context(MLflowCallback(request.tracking_uri, space, run, store, view.say, told))
        write_text(run.space, space.to_yaml())
        if space.search.latency is None:
            _connect(request, view, stack)
        placement = place(request.workers_per_trial, request.gpus_per_worker)
        if request.grow_to is None:
            check_fits(placement)
        capacity = _Capacity(placement, request.grow_to or 1, request.max_concurrent or space.search.trials, view)
        facts["reference"] = costs.reference()
        tables = ArtifactsCallback(space, run, record, teacher.metrics, rungs, facts)
        controller = StudyController(
            space,
            record,
            rungs,
            reference=costs.reference(),
            teacher=teacher.training(),
            confirm=request.confirm,
            listeners=[tables, tracker, view],
        )
        view.begin(capacity.slots, record.all())
        from kdsearch.engine.tune import train_all

        def job_of(record: TrialRecord) -> TrialJob:
            is_teacher = record.stage == "teacher"
            return TrialJob(
                id=record.id,
                config=record.config.model_dump_json(),
                store=str(store.path),
                teacher_weights=None if record.config.teacher is None else str(teacher.weights),
                checkpoint=str(run.checkpoint(record.id)),
                output=str(teacher.folder if is_teacher else run.student(record.id)),
                # The teacher is trained while nothing else is, so on a CPU it may have all of one machine.
                threads=max(1, int(placement.cpus)) * (capacity.slots if is_teacher else 1),
                maps_plan=None if planned.plan is None else planned.plan.to_json(),
                log=str(run.log),
                plugins=plugins.named(),
            )

        status: Status = "done"
        failure = ""
        training.set()
        try:
            try:
                with interruptible():  # again: Ray has set handlers of its own
                    limits = Timeouts(space.search.start_timeout, space.search.epoch_timeout)
                    train_all(controller, job_of, placement, capacity, space.search.max_failures, limits)
            except Interrupted:
                status = "interrupted"
            if controller.teacher is not None and controller.teacher.state in ("FAIL", "INFEASIBLE"):
                status, failure = "failed", f"the teacher could not be trained: {controller.teacher.reason}"
            elif status == "done" and not controller.members():
                status, failure = "failed", f"no trial was completed; {_commonest_reason(record)}"
            tables.write(status)
        except OSError as error:
            # The disk is full, or the folder has gone: what was told before stands in the journal.
            traceback.print_exc()
            tracker.finish("failed")
            failure = f"{error}; make room or mend it, then go on"
            view.finish("failed", failure, controller.members(), controller.confirmed(), controller.volume, [])
            return EXIT["failed"]
        write_pages(run)
        tracker.confirmed(controller.confirmed())
        tracker.finish(status)
        notes = [tracker.how_to_look()]
        if what := teacher.in_words():
            notes.insert(0, what)
        if audit := rungs.audit_report():
            notes.append(
                f"early stopping: of {audit['complete']} trials that ran on to audit it, {audit['wrong']} ended on the "
                "frontier"
            )
        view.finish(status, failure, controller.members(), controller.confirmed(), controller.volume, notes)
    return EXIT[status]


class _Capacity:
    """How many trials run at once: what the cluster holds at the moment, between `least` and `most`."""

    def __init__(self, placement: Placement, least: int, most: int, view: ConsoleCallback) -> None:
        self.placement, self.least, self.most, self.view = placement, least, most, view
        self.slots = self._now()

    def __call__(self) -> int:
        if (now := self._now()) != self.slots:
            self.slots = now
            self.view.capacity(now)
        return now

    def _now(self) -> int:
        return min(max(slots(self.placement), self.least), self.most)


@contextmanager
def as_a_study_wrote_it(file: Path) -> Iterator[None]:
    """Turn what odd values in a file of the run folder raise into one sentence: it may come from somebody else."""
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(
            f"{file} holds values that no study writes ({reason}); bring it back from a copy, or start anew under "
            "another --name."
        ) from error


def _connect(request: Request, view: ConsoleCallback, stack: ExitStack) -> None:
    view.say(f"starting Ray {'at ' + request.address if request.address else ''}".rstrip())
    stack.enter_context(connected(request.address))


def _measure_latency(
    request: Request, space: SearchSpace, run: RunFolder, costs: Costs, view: ConsoleCallback, stack: ExitStack
) -> dict[str, Any]:
    """Connect to Ray, and measure what is not known yet; `stack` ends the connection with the study."""
    from kdsearch.engine.latency_probe import RayLatencyProbe

    target = space.search.latency
    assert target is not None
    costs.networks()  # too many students are an error before Ray starts
    _connect(request, view, stack)
    with ExitStack() as measuring:
        advance = measuring.enter_context(view.progress(f"latency on {target}"))

        def stopwatch(device: str | None) -> RayLatencyProbe:
            return measuring.enter_context(RayLatencyProbe(target, device, space.search.start_timeout))

        about = costs.measure(run, stopwatch, advance)
    report = latency_report({"latency": about})
    assert report is not None
    view.say(escape(report.line()))
    return about


def _store(space: SearchSpace, run: RunFolder, view: ConsoleCallback) -> Store:
    config = space.default().trial.data
    with view.progress(f"data {config.name}") as advance:
        return build_store(config, run.stores, progress=advance)


def _commonest_reason(record: StudyStorage) -> str:
    reasons = Counter(r.reason for r in record.all() if r.reason)
    return f"most often: {reasons.most_common(1)[0][0]}" if reasons else "every trial was stopped early"
