"""Resident workers stay: on a real Ray, trials that end at the same moment cost none of them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from kdsearch.config.space.search_space import load_space
from kdsearch.engine.cluster import connected
from kdsearch.engine.faults import Faults
from kdsearch.engine.messages import Placement
from kdsearch.engine.timeouts import Timeouts
from kdsearch.engine.tune import run_trials
from kdsearch.search.callbacks import StudyCallback
from kdsearch.search.controller import StudyController
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord
from tests.search.conftest import SPACE, cost_of

SLOTS, TRIALS = 4, 24


class Together(tune.Trainable):  # type: ignore[misc]
    """Ends its epochs when all others do, on the second; it takes a moment to take the next trial."""

    def setup(self, config: dict[str, Any]) -> None:
        self.starts = Path(config["job"])
        with self.starts.open("a") as starts:
            starts.write(f"{os.getpid()}\n")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        time.sleep(0.2)
        return True

    def step(self) -> dict[str, Any]:
        while len(self.starts.read_text().split()) < SLOTS:
            time.sleep(0.05)  # Tune gives a trial that waits for its actor another one that is up, and drops the first
        time.sleep(1 - time.time() % 1)
        return {"epoch": 4, "metrics/val/miou": 0.5}

    def save_checkpoint(self, checkpoint_dir: str) -> None: ...

    def load_checkpoint(self, checkpoint: Any) -> None: ...


@pytest.mark.ray
def test_trials_that_end_together_leave_all_workers_up(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(SPACE.replace("trials: 8", f"trials: {TRIALS}"))
    space = load_space(tmp_path / "toy.yaml")
    record = StudyStorage.open(None, space, cost_of)
    rungs = RungState((), space.search.objectives, "none", 2)
    controller = StudyController(space, record, rungs, {"gflops": 10.0}, None, confirm=False, callback=StudyCallback())
    starts = tmp_path / "starts"

    def job_of(record: TrialRecord) -> Any:
        return str(starts)

    with connected(None):
        faults = Faults(Placement(), 3, dict)
        run_trials(controller, job_of, Placement(1, 0.0, 0.0), lambda: SLOTS, faults, Timeouts(900), trainable=Together)
    assert len(record.complete("search")) == TRIALS
    assert len(starts.read_text().split()) == SLOTS
