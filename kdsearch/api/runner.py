"""The run of a study, stage by stage: data, costs, teacher, storage, cluster, trials, results.

This is the one place where the search, the engine and tracking are put together.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from kdsearch import plugins
from kdsearch.api.cache_progress import CacheProgress
from kdsearch.api.identity import StudyIdentity
from kdsearch.api.interrupt import Interrupted, interruptible
from kdsearch.api.request import StudyRequest
from kdsearch.api.request_checks import check_request, values_of_a_study
from kdsearch.api.study_end import end_study
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.data.store.store import Store, build_store
from kdsearch.engine.cluster import check_fits, connected, living_nodes, place
from kdsearch.engine.faults import Faults
from kdsearch.engine.messages import Placement, TrialJob
from kdsearch.engine.slots import Slots
from kdsearch.engine.timeouts import Timeouts
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_text
from kdsearch.io.locks import hold
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
from kdsearch.tracking.mlflow.client import check_own_database
from kdsearch.tracking.retention import RetentionCallback
from kdsearch.train.teacher_cache.plan import plan_cache

TEACHER_POLL_S = 1.0


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
        self._identity = StudyIdentity(request, self.run)
        self.space: SearchSpace = request.search_space(self.run)
        self.callback = CallbackList(callbacks)
        self.stop = stop or threading.Event()
        self.started = threading.Event()
        """Set when the first trial may start: from then on the run folder holds work."""
        self._deadline = None if request.time_limit is None else time.monotonic() + request.time_limit
        self._facts: dict[str, Any] = {"versions": versions()}
        self._ray_is_ours: bool | None = None  # until Ray is connected
        check_request(request, self.space, self.run)
        self._earlier = [read_earlier(folder) for folder in request.warm_start]

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
        self._identity.check(self.space, self._log, self._data_progress())
        self._track(stack)
        store = self._store()
        self._costs = Costs(self.space, store)
        self._facts["store"] = store.path.name
        self._measure_latency(stack)
        self._facts["reference"] = self._costs.reference()
        self._teacher = StudyTeacher(self.space, store, self.run, self._costs)
        self._plan_cache(store)
        storage, rungs = self._open_storage(stack, store)
        self._await_teacher(stack)
        self._add_callbacks(stack, study, store, storage, rungs)
        self._connect(stack)
        self._mlflow.wait_until_open()
        placement = place(self.request.workers_per_trial, self.request.gpus_per_worker)
        if placement.gpus == 0 and placement.workers > 1:  # on GPUs all ranks normalise together
            check_space(self.space, store.info, placement.workers)
        if self.request.grow_to is None:
            check_fits(placement)
        most = self.request.max_concurrent or self.space.search.trials
        faults = Faults(placement, self.space.search.max_failures, living_nodes)
        slots = Slots(placement, self.request.grow_to or 1, most, self.callback.on_slots, faults.suspects)
        controller = StudyController(
            self.space, storage, rungs, reference=self._facts["reference"], teacher=self._teacher.training(),
            confirm=self.request.confirm, callback=self.callback, may_start=lambda: not self._is_late(),
        )  # fmt: skip
        if restored := storage.trials:
            self.callback.on_trials_restored(restored)
        self.callback.on_slots(slots.now)
        outcome = self._train(controller, store, placement, slots, faults)
        notes = [*filter(None, [self._teacher.describe()]), self._mlflow.how_to_look()]
        return end_study(controller, rungs, outcome, notes, self.callback)

    def _note_space(self) -> None:
        for note in (*getattr(self.request.space, "notes", ()), *self._identity.notes):
            self.callback.on_message(note)

    def _track(self, stack: ExitStack) -> None:
        """Open the study in MLflow: an address that cannot be written is refused before anything is built or trained.

        The database of the run folder is created meanwhile, which takes seconds.
        """
        uri, resumed = self.request.tracking_uri, self.run.journal.exists()
        if resumed:
            os.close(hold(self.run.lock))  # the process of another driver would be waited for
        self._mlflow = MLflowCallback(uri, self.space, self.run, self.callback.on_message, resumed)
        self._mlflow.start()
        stack.callback(self._mlflow.close)
        if uri is not None:
            self._mlflow.wait_until_open()

    def _data_progress(self) -> Callable[[int, int], None]:
        return partial(self.callback.on_progress, f"data {self.space.default().trial.data.name}")

    def _store(self) -> Store:
        config = self.space.default().trial.data
        store = build_store(config, self.run.stores, progress=self._data_progress(), log=self.callback.on_message)
        for note in store.notes:
            self.callback.on_message(note)
        return store

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

    def _open_storage(self, stack: ExitStack, store: Store) -> tuple[StudyStorage, RungState]:
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
            )  # fmt: skip
        if storage.cut:
            self._log(f"{self.run.journal} ended in {storage.cut} bytes of an unfinished entry; they were cut off.")
        if again := [trial.id for trial in storage.ask_again()]:
            self._log(f"asked again, since they failed: {', '.join(again)}")
        record = self._identity.begin(self.space, store, storage)
        keep_old_spaces(self.run, storage.old_spaces)
        if storage.extension is not None:
            for line in storage.extension.lines():
                self._log(line)
        if self._earlier:
            for line in describe_warm_start(warm_start(storage, self.space, self.run, self._earlier, record)):
                self._log(line)
        write_text(self.run.space, self.space.record())
        return storage, rungs

    def _await_teacher(self, stack: ExitStack) -> None:
        """Become the one study on this storage that trains the teacher, or wait for the one that does."""
        waited = False
        while not self._teacher.claim(stack):
            if not waited:
                self._log(f"another study trains the same teacher, {self._teacher.folder}; this one waits for it")
            waited = True
            if self.stop.wait(TEACHER_POLL_S):
                raise Interrupted("interrupted")
            if self._is_late():
                return  # no trial starts any more

    def _add_callbacks(
        self, stack: ExitStack, study: StudyInfo, store: Store, storage: StudyStorage, rungs: RungState
    ) -> None:
        """Files first, so that every other callback finds them current; MLflow last, since its end may take long."""
        restored = [t for t in [*storage.trials, *self._teacher.trained()] if t.state != "RUNNING"]
        self._mlflow.begin(store, restored)
        artifacts = ArtifactsCallback(self.space, self.run, storage, self._teacher.metrics, rungs, self._facts)
        first = [artifacts, RetentionCallback(self.space, self.run, storage), PagesCallback(self.run)]
        for at, callback in enumerate(first):
            self.callback.insert(at, callback, study)
        self.callback.insert(len(self.callback.callbacks), self._mlflow, study)

    def _connect(self, stack: ExitStack) -> None:
        """Connect to Ray, once."""
        if self._ray_is_ours is not None:
            return
        address = self.request.address
        self.callback.on_message(f"starting Ray{f' at {address}' if address else ''}")
        self._ray_is_ours = stack.enter_context(connected(address))

    # ---- training and the end ------------------------------------------------------------------------------------

    def _train(
        self, controller: StudyController, store: Store, placement: Placement, slots: Slots, faults: Faults
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
                    faults,
                    timeouts,
                    stop=self._poll,
                )
        except (KeyboardInterrupt, StudyInterrupted):
            return "interrupted", ""
        except (TimeoutError, ConnectionError) as error:
            # Of Ray, though they are kinds of OSError.
            traceback.print_exc()
            return "failed", f"{error}; every result so far is kept, go on once the cluster answers"
        except OSError as error:
            # The disk is full, or the folder is gone: everything up to here is in the journal.
            traceback.print_exc()
            return "failed", f"{error}; make room or mend it, then go on"
        if controller.teacher is not None and controller.teacher.state in ("FAIL", "INFEASIBLE"):
            return "failed", f"the teacher could not be trained: {controller.teacher.reason}"
        if not controller.members():
            reason = (
                f" within {self.request.time_limit:g} s"
                if self._is_late()
                else f"; {_commonest_reason(controller.storage)}"
            )
            return "failed", f"no trial was completed{reason}"
        return "done", ""

    def _job(self, trial: TrialRecord, store: Store, placement: Placement, slots: Slots) -> TrialJob:
        is_teacher = trial.stage == "teacher"
        folder = self._teacher.folder if is_teacher else self.run.student(trial.id)
        if trial.config.teacher is not None and self._teacher.weights is not None:
            self._identity.note_teacher(self._teacher.weights, self._log)
        return TrialJob(
            id=trial.id,
            config=trial.config.model_dump_json(),
            store=str(store.path),
            teacher_weights=str(self._teacher.weights) if trial.config.distill else None,
            checkpoint=str(self.run.checkpoint(trial.id)),
            output=str(folder),
            # The teacher is trained while nothing else is, so on CPUs it may use the cores of its machine.
            threads=max(1, int(placement.cpus)) * (slots.now if is_teacher else 1),
            cache_plan=None if self._cache_plan is None else self._cache_plan.to_json(),
            log=str(self.run.log),
            plugins=plugins.named(),
        )

    def _is_late(self) -> bool:
        """Whether the time limit is over."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _poll(self) -> bool:
        """Whether to stop; polled by the engine."""
        self._cache_progress.poll()
        return self.stop.is_set()

    def _log(self, text: str) -> None:
        """A message that the log of the run keeps too."""
        self.callback.on_message(text)
        with self.run.log.open("a", encoding="utf-8") as log:
            log.write(text + "\n")


def _no_cache() -> None:
    """The progress of a cache that no trial wants."""


def _commonest_reason(storage: StudyStorage) -> str:
    reasons = Counter(trial.reason for trial in storage.trials if trial.reason)
    return f"most often: {reasons.most_common(1)[0][0]}" if reasons else "every trial was stopped early"
