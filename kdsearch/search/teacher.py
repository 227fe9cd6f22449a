"""The teacher of a study: its weights, and its training as the first trial if they do not exist yet."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path

from kdsearch.config.metrics import METRICS
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.io.locks import take
from kdsearch.io.run_folder import RunFolder
from kdsearch.models.checkpoint import checkpoint_file
from kdsearch.search.costs import Costs
from kdsearch.search.trial_record import TrialRecord
from kdsearch.train.teacher import teacher_folder, teacher_lock, teacher_trial


class StudyTeacher:
    """The teacher of a study. `weights` is their file, None if no trial distils; they may not exist yet.

    `folder` is the folder of a teacher that a study trains, None for a checkpoint.
    """

    def __init__(self, space: SearchSpace, store: Store, run: RunFolder, costs: Costs) -> None:
        self.config, self.costs = space.default().trial, costs
        self.folder: Path | None = None
        self.weights: Path | None = None
        teacher = self.config.teacher
        if teacher is None or not space.distils():
            return
        if teacher.checkpoint is not None:
            self.weights = checkpoint_file(teacher.checkpoint, teacher.network())
            return
        self.folder = teacher_folder(self.config, store, run.teachers)
        self.weights = self.folder / "model.safetensors"
        if self.folder.exists() and not self.weights.exists():
            raise UserError(
                f"{self.weights} is missing; delete the folder {self.folder}, and the teacher is trained again."
            )

    def training(self) -> TrialRecord | None:
        """The trial that trains the teacher; None if its weights exist, or nothing is distilled."""
        if self.weights is None or self.weights.exists():
            return None
        config = teacher_trial(self.config)
        return TrialRecord(id="teacher", stage="teacher", state="RUNNING", config=config, params={}, cost=self.cost())

    def claim(self, stack: ExitStack) -> bool:
        """Whether this study may go on: its teacher exists, or this process alone trains it as long as `stack` is open.

        False while another process on the same storage trains it.
        """
        if self.folder is None or self.weights is None or self.weights.exists():
            return True
        lock = take(teacher_lock(self.folder))
        if lock is not None:
            stack.callback(os.close, lock)
        return lock is not None

    def trained(self) -> list[TrialRecord]:
        """The record of its training, if a study has trained it."""
        if not self.metrics():
            return []
        config = teacher_trial(self.config)
        teacher = TrialRecord(
            "teacher", "teacher", "COMPLETE", config, {}, self.cost(), config.train.epochs, self.metrics()
        )
        return [teacher]

    def cost(self) -> dict[str, float]:
        return self.costs.of_teacher()

    def metrics(self) -> dict[str, float]:
        """The metrics of its last epoch; empty if it is not trained yet, or came as a checkpoint."""
        path = self.folder / "metrics.json" if self.folder is not None else None
        if path is None or not path.exists():
            return {}
        metrics: dict[str, float] = json.loads(path.read_text())
        return metrics

    def describe(self) -> str:
        """One line with its mIoU and its cost; empty if its mIoU is not known."""
        miou = self.metrics().get("val/miou")
        if miou is None:
            return ""
        cost = self.cost()
        shown = [METRICS[name].text(cost[name]) for name in ("gflops", "latency_ms") if name in cost]
        return f"the teacher: mIoU {miou:.3f}, {', '.join(shown)}"
