"""A study from request to result: check everything, train, and leave the run folder in order."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.markup import escape

from kdsearch import models, plugins
from kdsearch.config.space import SearchSpace
from kdsearch.data.reader import open_reader
from kdsearch.data.store import Store, build_store
from kdsearch.errors import UserError
from kdsearch.requested import requested_space
from kdsearch.run_folder import RunFolder, write_text
from kdsearch.search.agenda import Agenda
from kdsearch.search.cluster import check_batches, check_fits, connected, place, slots
from kdsearch.search.costs import Costs
from kdsearch.search.generations import keep_old_spaces, space_to_go_on_with
from kdsearch.search.limits import Limits
from kdsearch.search.record import Record, StudyRecord
from kdsearch.search.rungs import Rungs
from kdsearch.search.warm_start import lines as carried_lines
from kdsearch.search.warm_start import read_earlier, warm_start
from kdsearch.search.workers import Job, Placement
from kdsearch.tracking.latency import latency_report
from kdsearch.tracking.live import LiveView
from kdsearch.tracking.mlflow import Tracker
from kdsearch.tracking.pages import versions, write_pages
from kdsearch.tracking.tables import Status, Tables
from kdsearch.tracking.uris import check_own_database, check_server
from kdsearch.train.maps_plan import plan_maps
from kdsearch.train.teacher import teacher_folder, teacher_trial


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


EXIT = {"done": 0, "failed": 1, "interrupted": 130}
"""Exit status by how a study ended."""


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM. Not an `Exception`, so that nothing on the way up takes it for a failed trial."""


class Ended(NamedTuple):
    """The exit status of a study (0 done, 1 failed, 130 interrupted), and where what there is stays."""

    status: int
    run: RunFolder


def run_study(request: Request) -> Ended:
    """Carry a study out.

    Raises `UserError` for a request that cannot be met.
    """
    run = _run_folder(request)
    space = _space(request, run)
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
        with _interruptible():
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
        view = stack.enter_context(LiveView(space, run))
        store = _store(space, run, view)
        costs = Costs(space, store)
        costs.check()
        facts: dict[str, Any] = {"store": store.path.name, "versions": versions()}
        if space.search.latency is not None:
            # Before anything else runs on these machines, and before the record asks what a trial costs.
            facts["latency"] = _measure_latency(request, space, run, costs, view, stack)
        teacher = _Teacher(space, store, run, costs)
        planned = plan_maps((sample.trial for _, sample in space.corners()), store, run.teacher_maps, teacher.weights)
        if planned.why:
            view.say(planned.why)
        if planned.plan is not None and teacher.weights is not None:
            view.maps = partial(planned.plan.progress, teacher.config, store, teacher.weights)
        with as_a_study_wrote_it(run.journal):
            record = StudyRecord(run.journal, space, costs)
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
        tracker = stack.enter_context(Tracker(request.tracking_uri, space, run, store, view.say, told))
        write_text(run.space, space.to_yaml())
        if space.search.latency is None:
            _connect(request, view, stack)
        placement = place(request.workers_per_trial, request.gpus_per_worker)
        if request.grow_to is None:
            check_fits(placement)
        capacity = _Capacity(placement, request.grow_to or 1, request.max_concurrent or space.search.trials, view)
        facts["reference"] = costs.reference()
        tables = Tables(space, run, record, teacher.metrics, rungs, facts)
        agenda = Agenda(
            space,
            record,
            rungs,
            reference=costs.reference(),
            teacher=teacher.training(),
            confirm=request.confirm,
            listeners=[tables, tracker, view],
        )
        view.begin(capacity.slots, record.all())
        from kdsearch.search.tune import train_all

        def job_of(record: Record) -> Job:
            is_teacher = record.stage == "teacher"
            return Job(
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
            with _interruptible():  # again: Ray has set handlers of its own
                limits = Limits(space.search.start_timeout, space.search.epoch_timeout)
                train_all(agenda, job_of, placement, capacity, space.search.max_failures, limits)
        except Interrupted:
            status = "interrupted"
        except OSError as error:
            # The disk is full, or the folder has gone: what was told before stands in the journal.
            traceback.print_exc()
            tracker.finish("failed")
            failure = f"{error}; make room or mend it, then go on"
            view.finish("failed", failure, agenda.members(), agenda.confirmed(), agenda.volume, [])
            return EXIT["failed"]
        if agenda.teacher is not None and agenda.teacher.state in ("FAIL", "INFEASIBLE"):
            status, failure = "failed", f"the teacher could not be trained: {agenda.teacher.reason}"
        elif status == "done" and not agenda.members():
            status, failure = "failed", f"no trial was completed; {_commonest_reason(record)}"
        tables.write(status)
        write_pages(run)
        tracker.confirmed(agenda.confirmed())
        tracker.finish(status)
        notes = [tracker.how_to_look()]
        if (miou := teacher.metrics().get("val/miou")) is not None:
            cost = teacher.cost()
            text = f"the teacher: mIoU {miou:.3f}, {cost['gflops']:.2f} GFLOPs"
            notes.insert(0, text + (f", {cost['latency_ms']:.3g} ms" if "latency_ms" in cost else ""))
        if audit := rungs.audit_report():
            notes.append(
                f"early stopping: of {audit['complete']} trials that ran on to audit it, {audit['wrong']} ended on the "
                "frontier"
            )
        view.finish(status, failure, agenda.members(), agenda.confirmed(), agenda.volume, notes)
    return EXIT[status]


class _Capacity:
    """How many trials run at once: what the cluster holds at the moment, between `least` and `most`."""

    def __init__(self, placement: Placement, least: int, most: int, view: LiveView) -> None:
        self.placement, self.least, self.most, self.view = placement, least, most, view
        self.slots = self._now()

    def __call__(self) -> int:
        if (now := self._now()) != self.slots:
            self.slots = now
            self.view.capacity(now)
        return now

    def _now(self) -> int:
        return min(max(slots(self.placement), self.least), self.most)


class _Teacher:
    """Where the study's teacher lies, and its training where it is not there yet."""

    def __init__(self, space: SearchSpace, store: Store, run: RunFolder, costs: Costs) -> None:
        self.config, self.costs = space.default().trial, costs
        self.folder: Path | None = None
        self.weights: Path | None = None
        teacher = self.config.teacher
        if teacher is None:
            return
        if teacher.checkpoint is not None:
            self.weights = models.checkpoint_file(teacher.checkpoint, teacher.network())
            network = models.build(teacher.network(), store.info)
            models.load_network(network, self.weights)
            return
        self.folder = teacher_folder(self.config, store, run.teachers)
        self.weights = self.folder / "model.safetensors"

    def training(self) -> Record | None:
        if self.weights is None or self.weights.exists():
            return None
        config = teacher_trial(self.config)
        return Record(id="teacher", stage="teacher", state="RUNNING", config=config, params={}, cost=self.cost())

    def trained(self) -> list[Record]:
        """The teacher's record, where one was trained by a study of this folder's."""
        if not self.metrics():
            return []
        config = teacher_trial(self.config)
        teacher = Record("teacher", "teacher", "COMPLETE", config, {}, self.cost(), config.train.epochs, self.metrics())
        return [teacher]

    def cost(self) -> dict[str, float]:
        return self.costs.of_teacher()

    def metrics(self) -> dict[str, float]:
        """What the teacher reached when it was trained; empty while it is not, or when it came as a checkpoint."""
        path = self.folder / "metrics.json" if self.folder is not None else None
        if path is None or not path.exists():
            return {}
        metrics: dict[str, float] = json.loads(path.read_text())
        return metrics


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


def _run_folder(request: Request) -> RunFolder:
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


def _space(request: Request, run: RunFolder) -> SearchSpace:
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


def _connect(request: Request, view: LiveView, stack: ExitStack) -> None:
    view.say(f"starting Ray {'at ' + request.address if request.address else ''}".rstrip())
    stack.enter_context(connected(request.address))


def _measure_latency(
    request: Request, space: SearchSpace, run: RunFolder, costs: Costs, view: LiveView, stack: ExitStack
) -> dict[str, Any]:
    """Connect to Ray, and measure what is not known yet; `stack` ends the connection with the study."""
    from kdsearch.search.stopwatch import RayStopwatch

    target = space.search.latency
    assert target is not None
    costs.networks()  # too many students are an error before Ray starts
    _connect(request, view, stack)
    with ExitStack() as measuring:
        advance = measuring.enter_context(view.progress(f"latency on {target}"))

        def stopwatch(device: str | None) -> RayStopwatch:
            return measuring.enter_context(RayStopwatch(target, device, space.search.start_timeout))

        about = costs.measure(run, stopwatch, advance)
    report = latency_report({"latency": about})
    assert report is not None
    view.say(escape(report.line()))
    return about


def _store(space: SearchSpace, run: RunFolder, view: LiveView) -> Store:
    config = space.default().trial.data
    with view.progress(f"data {config.name}") as advance:
        return build_store(config, run.stores, progress=advance)


def _commonest_reason(record: StudyRecord) -> str:
    reasons = Counter(r.reason for r in record.all() if r.reason)
    return f"most often: {reasons.most_common(1)[0][0]}" if reasons else "every trial was stopped early"


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into `Interrupted`; a second one ends the process at once.

    Raised inside Ray's compiled code it may come out as something else, a `SystemError` say; so whatever comes out
    after the signal counts as the interruption.
    """
    received = False

    def interrupt(number: int, frame: Any) -> None:
        nonlocal received
        received = True
        for name, handler in before.items():
            signal.signal(name, handler)
        raise Interrupted

    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    for name in before:
        signal.signal(name, interrupt)
    try:
        yield
    except BaseException as error:
        if received and not isinstance(error, Interrupted):
            raise Interrupted from error
        raise
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
