"""The teacher of a study: where it lies, and its training as the first trial where it is not there yet."""

from __future__ import annotations

import json
from pathlib import Path

from kdsearch.config.space.search_space import SearchSpace
from kdsearch.data.store.store import Store
from kdsearch.io.run_folder import RunFolder
from kdsearch.models.checkpoint import checkpoint_file
from kdsearch.models.registry import build_network
from kdsearch.models.weights import load_network
from kdsearch.search.costs import Costs
from kdsearch.search.trial_record import TrialRecord
from kdsearch.train.teacher import teacher_folder, teacher_trial


class StudyTeacher:
    """Where the study's teacher lies, and its training where it is not there yet."""

    def __init__(self, space: SearchSpace, store: Store, run: RunFolder, costs: Costs) -> None:
        self.config, self.costs = space.default().trial, costs
        self.folder: Path | None = None
        self.weights: Path | None = None
        teacher = self.config.teacher
        if teacher is None:
            return
        if teacher.checkpoint is not None:
            self.weights = checkpoint_file(teacher.checkpoint, teacher.network())
            network = build_network(teacher.network(), store.info)
            load_network(network, self.weights)
            return
        self.folder = teacher_folder(self.config, store, run.teachers)
        self.weights = self.folder / "model.safetensors"

    def training(self) -> TrialRecord | None:
        if self.weights is None or self.weights.exists():
            return None
        config = teacher_trial(self.config)
        return TrialRecord(id="teacher", stage="teacher", state="RUNNING", config=config, params={}, cost=self.cost())

    def trained(self) -> list[TrialRecord]:
        """The teacher's record, where one was trained by a study of this folder's."""
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
        """What the teacher reached when it was trained; empty while it is not, or when it came as a checkpoint."""
        path = self.folder / "metrics.json" if self.folder is not None else None
        if path is None or not path.exists():
            return {}
        metrics: dict[str, float] = json.loads(path.read_text())
        return metrics

    def describe(self) -> str:
        """What the teacher reached and costs; empty where that is not known."""
        miou = self.metrics().get("val/miou")
        if miou is None:
            return ""
        cost = self.cost()
        latency = f", {cost['latency_ms']:.3g} ms" if "latency_ms" in cost else ""
        return f"the teacher: mIoU {miou:.3f}, {cost['gflops']:.2f} GFLOPs{latency}"
