"""The run of a study, stage by stage: data, costs, teacher, storage, cluster, trials, results.

This is the one place where the search, the engine and tracking are put together.
"""

from __future__ import annotations

import shutil
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from kdsearch import plugins
from kdsearch.api.cache_progress import CacheProgress
from kdsearch.api.interrupt import Interrupted, interruptible
from kdsearch.api.request import StudyRequest
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.data.registry import open_reader
from kdsearch.data.store.store import Store, build_store
from kdsearch.engine.address import check_cluster
from kdsearch.engine.cluster import check_batches, check_fits, check_gpus, connected, place, ranks_alone
from kdsearch.engine.messages import Placement, TrialJob
from kdsearch.engine.slots import Slots
from kdsearch.engine.timeouts import Timeouts
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_text
from kdsearch.io.targets import new_folders
from kdsearch.report.callback import PagesCallback
from kdsearch.search.callbacks import CallbackList, Status, StudyCallback, StudyEnd, StudyInfo
from kdsearch.search.controller import StudyController
from kdsearch.search.costs import Costs, check_space
from kdsearch.search.evolution.space_versions import keep_old_spaces
from kdsearch.search.evolution.warm_start import describe_warm_start, warm_start
from kdsearch.search.latency.report import latency_report
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.earlier_study import read_earlier
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.summary import versions
from kdsearch.search.teacher import StudyTeacher
from kdsearch.search.trial_record import TrialRecord
from kdsearch.tracking.artifacts import ArtifactsCallback
from kdsearch.tracking.mlflow.callback import MLflowCallback
from kdsearch.tracking.mlflow.client import check_own_database, check_server
from kdsearch.tracking.retention import RetentionCallback
from kdsearch.train.requirements import check_weights
from kdsearch.train.teacher_cache.plan import plan_cache


class StudyRunner:
    """One driver of one study, from its request to its `StudyEnd`.

    Raises `UserError` for a request that cannot be met; a run folder that such a request created is removed again. An
    interruption (SIGINT, SIGTERM, or `stop` set) ends the study with status `interrupted`; one before the first trial
    raises `Interrupted`.
    """

    def __init__(
        self, request: StudyRequest, callbacks: Sequence[StudyCallback] = (), stop: threading.Event | None = None
    ) -> None:
        self.request = request
        self.run = request.run_folder()
        self.space: SearchSpace = request.search_space(self.run)
        self.callback = CallbackList(callbacks)
        self.stop = stop or threading.Event()
        self.started = threading.Event()
        """Set when the first trial may start: from then on the run folder holds work."""
        self._deadline = None if request.time_limit is None else time.monotonic() + request.time_limit
        self._facts: dict[str, Any] = {"versions": versions()}
        self._connected = False
        self._ray_is_ours = False
        self._check()

    def _check(self) -> None:
        """Everything that can be checked before anything is written."""
        check_cluster(self.request.address)
        check_gpus(self.request.gpus_per_worker)
        check_batches(self.space, self.request.workers_per_trial)
        info = open_reader(self.space.default().trial.data).info
        request = self.request
        check_space(self.space, info, ranks_alone(request.workers_per_trial, request.gpus_per_worker, request.address))
        check_weights(self.space.default().trial, info)
        if self.request.tracking_uri is not None:
            check_server(self.request.tracking_uri)
        self._earlier = [read_earlier(folder) for folder in self.request.warm_start]

    def execute(self) -> StudyEnd:
        """Run the study; called once."""
        is_new = not self.run.path.exists()
        with new_folders(self.run.stores, self.run.teachers):
            try:
                with interruptible(), ExitStack() as stack:
                    self.run.create()
                    if self.request.tracking_uri is None:
                        check_own_database(self.run)
                    return self._execute(stack)
            except Interrupted:
                raise Interrupted(f"interrupted; the run folder {self.run.path} stays") from None
            except UserError:
                if is_new and not self.started.is_set():
                    shutil.rmtree(self.run.path, ignore_errors=True)
                raise

    # ---- stages --------------------------------------------------------------------------------------------------

    def _execute(self, stack: ExitStack) -> StudyEnd:
        study = StudyInfo(self.run.path.name, self.run.path, self.space)
        self.callback.on_study_start(study)
        self._note_space()
        store = self._store()
        self._costs = Costs(self.space, store)
        self._facts["store"] = store.path.name
        self._measure_latency(stack)
        self._facts["reference"] = self._costs.reference()
        self._teacher = StudyTeacher(self.space, store, self.run, self._costs)
        self._plan_cache(store)
        storage, rungs = self._open_storage(stack)
        self._add_callbacks(stack, study, store, storage, rungs)
        self._connect(stack)
        placement = place(self.request.workers_per_trial, self.request.gpus_per_worker)
        if placement.gpus == 0 and placement.workers > 1:  # on GPUs all ranks normalise together
            check_space(self.space, store.info, placement.workers)
        if self.request.grow_to is None:
            check_fits(placement)
        most = self.request.max_concurrent or self.space.search.trials
        slots = Slots(placement, self.request.grow_to or 1, most, self.callback.on_slots)
        controller = StudyController(
            self.space,
            storage,
            rungs,
            reference=self._facts["reference"],
            teacher=self._teacher.training(),
            confirm=self.request.confirm,
            callback=self.callback,
            may_start=lambda: self._deadline is None or time.monotonic() < self._deadline,
        )
        if restored := storage.trials:
            self.callback.on_trials_restored(restored)
        self.callback.on_slots(slots.now)
        return self._finish(controller, rungs, self._train(controller, store, placement, slots))

    def _note_space(self) -> None:
        for note in getattr(self.request.space, "notes", ()):
            self.callback.on_message(note)

    def _store(self) -> Store:
        config = self.space.default().trial.data
        return build_store(config, self.run.stores, progress=partial(self.callback.on_progress, f"data {config.name}"))

    def _measure_latency(self, stack: ExitStack) -> None:
        """Measure the latency of all students that is not known yet, while nothing else runs on the cluster."""
        target = self.space.search.latency
        if target is None:
            return
        from kdsearch.engine.latency_probe import RayLatencyProbe

        self._costs.candidates()  # too many students are an error before Ray starts
        self._connect(stack)
        with ExitStack() as measuring:

            def probe(device: str | None) -> RayLatencyProbe:
                return measuring.enter_context(RayLatencyProbe(target, device, self.space.search.start_timeout))

            progress = partial(self.callback.on_progress, f"latency on {target}")
            self._facts["latency"] = self._costs.measure(self.run, probe, progress)
        report = latency_report(self._facts["latency"])
        assert report is not None
        self.callback.on_message(report.line())

    def _plan_cache(self, store: Store) -> None:
        trials = (sample.trial for _, sample in self.space.corners())
        planned = plan_cache(trials, store, self.run.teacher_maps, self._teacher.weights)
        if planned.why:
            self.callback.on_message(planned.why)
        self._cache_plan = planned.plan
        progress: Callable[[], tuple[int, int] | None] = _no_cache
        if planned.plan is not None and self._teacher.weights is not None:
            progress = partial(planned.plan.progress, self._teacher.config, store, self._teacher.weights)
        self._cache_progress = CacheProgress(progress, self.callback)

    def _open_storage(self, stack: ExitStack) -> tuple[StudyStorage, RungState]:
        """The study's journal and rungs, with the results of earlier studies where they are requested."""
        search = self.space.search
        with values_of_a_study(self.run.journal):
            storage = StudyStorage.open(self.run.journal, self.space, self._costs)
            for each in storage.trials:
                self.run.checkpoint(each.id)  # an id from a file becomes part of a path
        stack.callback(storage.close)
        with values_of_a_study(self.run.rungs):
            rungs = RungState(
                search.rungs,
                search.objectives,
                search.stop,
                search.reduction,
                self.run.rungs,
                search.audit,
                search.seed,
            )
        if storage.cut:
            self._log(f"{self.run.journal} ended in {storage.cut} bytes of an unfinished entry; they were cut off.")
        keep_old_spaces(self.run, storage.old_spaces)
        if storage.extension is not None:
            for line in storage.extension.lines():
                self._log(line)
        if self._earlier:
            for line in describe_warm_start(warm_start(storage, self.space, self.run, self._earlier)):
                self._log(line)
        write_text(self.run.space, self.space.to_yaml())
        return storage, rungs

    def _add_callbacks(
        self, stack: ExitStack, study: StudyInfo, store: Store, storage: StudyStorage, rungs: RungState
    ) -> None:
        """Files first, so that every other callback finds them current; MLflow last, since its end may take long."""
        restored = [t for t in [*storage.trials, *self._teacher.trained()] if t.state != "RUNNING"]
        self._mlflow = MLflowCallback(
            self.request.tracking_uri, self.space, self.run, store, self.callback.on_message, restored
        )
        self._mlflow.start()
        stack.callback(self._mlflow.close)
        artifacts = ArtifactsCallback(self.space, self.run, storage, self._teacher.metrics, rungs, self._facts)
        first = [artifacts, RetentionCallback(self.space, self.run, storage), PagesCallback(self.run)]
        for at, callback in enumerate(first):
            self.callback.insert(at, callback, study)
        self.callback.insert(len(self.callback.callbacks), self._mlflow, study)

    def _connect(self, stack: ExitStack) -> None:
        """Connect to Ray, once."""
        if self._connected:
            return
        address = self.request.address
        self.callback.on_message(f"starting Ray{f' at {address}' if address else ''}")
        self._ray_is_ours = stack.enter_context(connected(address))
        self._connected = True

    # ---- training and the end ------------------------------------------------------------------------------------

    def _train(
        self, controller: StudyController, store: Store, placement: Placement, slots: Slots
    ) -> tuple[Status, str]:
        """Train all trials. Returns the status, and the reason where it is `failed`."""
        from kdsearch.engine.tune import StudyInterrupted, run_trials

        search = self.space.search
        timeouts = Timeouts(search.start_timeout, search.epoch_timeout)
        self.started.set()
        # A Ray that ends with the study ends its actors too. In the caller's own Ray, Tune has to end them.
        first = None if self._ray_is_ours else self.stop.set
        try:
            with interruptible(first):  # again: Ray has set handlers of its own
                run_trials(
                    controller,
                    lambda trial: self._job(trial, store, placement, slots),
                    placement,
                    slots,
                    search.max_failures,
                    timeouts,
                    stop=self._poll,
                )
        except (KeyboardInterrupt, StudyInterrupted):
            return "interrupted", ""
        except OSError as error:
            # The disk is full, or the folder is gone: everything up to here is in the journal.
            traceback.print_exc()
            return "failed", f"{error}; make room or mend it, then go on"
        if controller.teacher is not None and controller.teacher.state in ("FAIL", "INFEASIBLE"):
            return "failed", f"the teacher could not be trained: {controller.teacher.reason}"
        if not controller.members():
            late = self._deadline is not None and time.monotonic() >= self._deadline
            reason = f" within {self.request.time_limit:g} s" if late else f"; {_commonest_reason(controller.storage)}"
            return "failed", f"no trial was completed{reason}"
        return "done", ""

    def _job(self, trial: TrialRecord, store: Store, placement: Placement, slots: Slots) -> TrialJob:
        is_teacher = trial.stage == "teacher"
        folder = self._teacher.folder if is_teacher else self.run.student(trial.id)
        return TrialJob(
            id=trial.id,
            config=trial.config.model_dump_json(),
            store=str(store.path),
            teacher_weights=None if trial.config.teacher is None else str(self._teacher.weights),
            checkpoint=str(self.run.checkpoint(trial.id)),
            output=str(folder),
            # The teacher is trained while nothing else is, so on CPUs it may use all cores of one machine.
            threads=max(1, int(placement.cpus)) * (slots.now if is_teacher else 1),
            cache_plan=None if self._cache_plan is None else self._cache_plan.to_json(),
            log=str(self.run.log),
            plugins=plugins.named(),
        )

    def _poll(self) -> bool:
        """Whether to stop; polled by the engine."""
        self._cache_progress.poll()
        return self.stop.is_set()

    def _finish(self, controller: StudyController, rungs: RungState, outcome: tuple[Status, str]) -> StudyEnd:
        status, failure = outcome
        notes = [text] if (text := self._teacher.describe()) else []
        notes.append(self._mlflow.how_to_look())
        if audit := rungs.audit_report():
            notes.append(
                f"early stopping: of {audit['complete']} trials that trained on to audit it, {audit['wrong']} ended on "
                "the frontier"
            )
        end = StudyEnd(
            status, failure, controller.members(), controller.confirmed(), controller.hypervolume, tuple(notes)
        )
        try:
            self.callback.on_study_end(end)
        except OSError as error:
            # The last write of the tables is the first that found no room.
            traceback.print_exc()
            failure = f"{error}; make room or mend it, then go on"
            end = StudyEnd("failed", failure, end.members, end.confirmed, end.hypervolume, ())
            CallbackList([each for each in self.callback.callbacks if not each.critical]).on_study_end(end)
        return end

    def _log(self, text: str) -> None:
        """A message that the log of the run keeps too."""
        self.callback.on_message(text)
        with self.run.log.open("a", encoding="utf-8") as log:
            log.write(text + "\n")


def _no_cache() -> None:
    """The progress of a cache that no trial wants."""


@contextmanager
def values_of_a_study(file: Path) -> Iterator[None]:
    """Turn errors from odd values in a file of the run folder into one sentence: it may come from somebody else."""
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


def _commonest_reason(storage: StudyStorage) -> str:
    reasons = Counter(trial.reason for trial in storage.trials if trial.reason)
    return f"most often: {reasons.most_common(1)[0][0]}" if reasons else "every trial was stopped early"
