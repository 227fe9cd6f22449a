"""A study without Ray whose driver is killed again and again: `python -m tests.search.killed_driver FOLDER KILLS SEED`.

One process imports everything once and forks a driver for each life. Prints how many drivers were killed.
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

from kdsearch.config.space import load_space
from kdsearch.config.trial import TrialConfig
from kdsearch.run_folder import RunFolder, write_folder_atomically, write_text
from kdsearch.search.agenda import Agenda
from kdsearch.search.record import Record, StudyRecord
from kdsearch.search.rungs import Rungs
from kdsearch.tracking.tables import Tables
from tests.search.conftest import cost_of

SLOTS = 3
LIFE = 3


class Training:
    """A trial in the hands of pretended workers: an epoch is a line in `epochs.log`, a checkpoint a line of JSON."""

    def __init__(self, record: Record, run: RunFolder) -> None:
        self.record, self.run = record, run
        self.checkpoint = run.checkpoint(record.id)
        self.epoch = json.loads(self.checkpoint.read_text())["epoch"] if self.checkpoint.exists() else 0
        self.is_news = self.epoch > 0  # as workers do: a checkpoint's epoch is reported before the next is trained

    def step(self) -> tuple[int, dict[str, float]]:
        if not self.is_news:
            self.epoch += 1
            with (self.run.path / "epochs.log").open("a") as log:
                log.write(f"{self.record.id} {self.epoch}\n")
            write_text(self.checkpoint, json.dumps({"epoch": self.epoch}))
        self.is_news = False
        if self.epoch == self.record.config.train.epochs:
            write_folder_atomically(self.run.student(self.record.id), self._student)
        return self.epoch, {"val/miou": miou(self.record.config, self.epoch), "time/train_s": 1.0}

    @staticmethod
    def _student(folder: Path) -> None:
        (folder / "model.safetensors").write_text("weights")


def miou(config: TrialConfig, epoch: int) -> float:
    return (0.3 + 0.2 * (config.student.encoder == "resnet18") + config.train.lr) * epoch / config.train.epochs


def drive(folder: Path) -> None:
    """The driver of the study in `folder`, from wherever the last one left it to the end."""
    space = load_space(folder / "toy.yaml")
    run = RunFolder.at(str(folder), "run")
    run.create()
    write_text(run.space, space.to_yaml())
    record = StudyRecord(run.journal, space, cost_of)
    search = space.search
    rungs = Rungs(search.rungs, search.objectives, search.stop, search.reduction, run.rungs)
    tables = Tables(space, run, record, dict, rungs)
    agenda = Agenda(space, record, rungs, {"gflops": 10.0}, None, confirm=True, listeners=[tables])
    trainings: list[Training] = []
    while True:
        while len(trainings) < SLOTS and isinstance(given := agenda.next(), Record):
            trainings.append(Training(given, run))
        if not trainings:
            break
        training = trainings.pop(0)
        if agenda.heard(training.record.id, *training.step()):
            trainings.append(training)
        else:
            agenda.ended(training.record.id, None)
    tables.write("done")
    record.close()


def main(folder: Path, kills: int, seed: int) -> None:
    moments = random.Random(seed)
    log = folder / "run" / "epochs.log"

    def trained() -> int:
        return log.stat().st_size if log.exists() else 0

    for killed in range(10**6):
        driver = os.fork()
        if driver == 0:
            drive(folder)
            os._exit(0)
        before, lines = trained(), moments.choice([0, 1, 1, 2, 3])
        delay = moments.uniform(0, 0.5 if lines == 0 else 0.03)
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
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
