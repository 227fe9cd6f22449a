"""A study whose driver is killed again and again: `python -m tests.engine.killed_driver FOLDER KILLS SEED [ADDRESS]`.

One process imports everything once and forks a driver for each life. With the address of a Ray cluster the driver is
kdsearch's on Ray Tune, whose trials train in tasks on all nodes; without, it does what Tune would do itself. Prints how
many drivers were killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

# All that a driver needs, before any of it is used: what starts threads must not be forked.
import matplotlib.pyplot  # noqa: F401
import pandas  # noqa: F401
import pyarrow.parquet  # noqa: F401

from kdsearch.config.space.search_space import load_space
from kdsearch.engine.cluster import connected, living_nodes
from kdsearch.engine.messages import Placement
from kdsearch.engine.timeouts import Timeouts
from kdsearch.io.atomic import write_text
from kdsearch.io.run_folder import RunFolder
from kdsearch.report.callback import PagesCallback
from kdsearch.search.callbacks import CallbackList
from kdsearch.search.controller import StudyController
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord
from kdsearch.tracking.artifacts import ArtifactsCallback
from kdsearch.tracking.retention import RetentionCallback
from tests.engine.pretended import OnNodes, Training
from tests.search.conftest import cost_of

SLOTS = 3
LIFE = 3


def drive(folder: Path, address: str | None) -> None:
    """The driver of the study in `folder`, from wherever the last one left it to the end."""
    space = load_space(folder / "toy.yaml")
    run = RunFolder.at(str(folder), "run")
    run.create()
    write_text(run.space, space.to_yaml())
    record = StudyStorage.open(run.journal, space, cost_of)
    search = space.search
    rungs = RungState(search.rungs, search.objectives, search.stop, search.reduction, run.rungs)
    tables = ArtifactsCallback(space, run, record, dict, rungs)
    retention = RetentionCallback(space, run, record)
    controller = StudyController(
        space, record, rungs, {"gflops": 10.0}, None, True, CallbackList([tables, retention, PagesCallback(run)])
    )
    if address is None:
        by_hand(controller, run)
    else:
        from kdsearch.engine.faults import Faults
        from kdsearch.engine.tune import run_trials

        def job_of(record: TrialRecord) -> Any:
            return record.id, record.config.model_dump_json(), str(run.path)

        with connected(address):
            placement = Placement(1, 0.1, 0.0)
            faults = Faults(placement, 3, living_nodes)
            run_trials(controller, job_of, placement, lambda: SLOTS, faults, Timeouts(900), trainable=OnNodes)
    tables.write("done")
    record.close()


def by_hand(controller: StudyController, run: RunFolder) -> None:
    trainings: list[Training] = []
    while True:
        while len(trainings) < SLOTS and isinstance(given := controller.next_trial(), TrialRecord):
            trainings.append(Training(given.id, given.config, run))
        if not trainings:
            break
        training = trainings.pop(0)
        if controller.on_report(training.name, *training.step()):
            trainings.append(training)
        else:
            controller.on_trial_end(training.name, None)


def main(folder: Path, kills: int, seed: int, address: str | None) -> None:
    moments = random.Random(seed)
    log = folder / "run" / "epochs.log"

    def trained() -> int:
        return log.stat().st_size if log.exists() else 0

    for killed in range(10**6):
        driver = os.fork()
        if driver == 0:
            drive(folder, address)
            os._exit(0)
        before, lines = trained(), moments.choice([0, 1, 1, 2, 3])
        start_s = 0.5 if address is None else 8.0
        delay = moments.uniform(0, start_s if lines == 0 else 0.03)
        ended: Any = (0, 0)
        while ended[0] == 0 and (killed >= kills or trained() - before < lines * 8):
            time.sleep(0.0005)
            ended = os.waitpid(driver, os.WNOHANG)
        last = time.monotonic() + delay
        # However fast the machine is, no life takes more than LIFE epochs: the study lasts for all the kills.
        while ended[0] == 0 and time.monotonic() < last and (killed >= kills or trained() - before < LIFE * 8):
            time.sleep(0.0005)
        if ended[0] == 0:
            os.kill(driver, signal.SIGKILL)
            ended = os.waitpid(driver, 0)
        if os.WIFEXITED(ended[1]):
            print(json.dumps({"killed": killed, "status": os.WEXITSTATUS(ended[1])}))
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else None)
