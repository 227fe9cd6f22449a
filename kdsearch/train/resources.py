"""What trials share in one worker process: the device, open data stores and loaded teachers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch

from kdsearch import models
from kdsearch.config.trial import TrialConfig, TwoBranchConfig
from kdsearch.data.store import Store
from kdsearch.models.two_branch import TwoBranch


@dataclass
class Resources:
    """Kept from trial to trial: opening a store or loading a teacher happens once in a worker's life.

    `store` is the folder of the data set's store, `teacher_weights` the file of the trained teacher or None for trials
    that have none.
    """

    store_path: Path
    teacher_weights: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        self.store = Store.open(self.store_path)
        self._teachers: dict[str, models.Network] = {}

    def teacher(self, config: TrialConfig) -> models.Network | None:
        """The frozen teacher of this trial, in eval mode, or None when nothing is distilled."""
        if config.teacher is None:
            return None
        if self.teacher_weights is None:
            raise AssertionError("a trial with a teacher needs its weights")
        network_config = config.teacher.network()
        key = json.dumps([network_config.model_dump(mode="json", exclude={"fuse"}), str(self.teacher_weights)])
        if key not in self._teachers:
            # One teacher at a time stays in memory.
            self._teachers.clear()
            network = models.build(network_config, self.store.info)
            models.load_network(network, self.teacher_weights)
            network.to(self.device).eval().requires_grad_(False)
            self._teachers[key] = network
        teacher = self._teachers[key]
        if isinstance(teacher, TwoBranch):
            assert isinstance(network_config, TwoBranchConfig)
            teacher.fuse = network_config.fuse
        return teacher
