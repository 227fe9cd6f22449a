"""The device, the open data store and the loaded teacher that trials of one worker process share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kdsearch.config.networks import TwoBranchConfig
from kdsearch.config.trial import TrialConfig
from kdsearch.data.loader import Batches
from kdsearch.data.store.store import Store
from kdsearch.models.network import Network
from kdsearch.models.networks.two_branch import TwoBranch
from kdsearch.models.registry import build_network
from kdsearch.models.seg_output import SegOutput
from kdsearch.models.weights import load_network
from kdsearch.train.teacher_cache.plan import CachePlan
from kdsearch.train.teacher_cache.reader import TeacherCache
from kdsearch.train.teacher_cache.writer import TeacherForward, write_cache


@dataclass
class Resources:
    """Shared by successive trials: a store is opened and a teacher loaded once in a worker's life.

    `store_path` is the folder of the data set's store, `teacher_weights` the file of the trained teacher, None for
    trials without one. `cache_plan` names the teacher's maps that are cached and their folder; without it none are.
    `log` receives messages about the cache.
    """

    store_path: Path
    teacher_weights: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world_size: int = 1
    cache_plan: CachePlan | None = None
    log: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self.store = Store.open(self.store_path)
        self._teachers: dict[str, Network] = {}
        self._caches: dict[Path, TeacherCache] = {}

    def teacher(self, config: TrialConfig) -> Network | None:
        """The frozen teacher of this trial, in eval mode, or None when nothing is distilled."""
        if config.teacher is None:
            return None
        if self.teacher_weights is None:
            raise AssertionError("a trial with a teacher needs its weights")
        network_config = config.teacher.network()
        key = json.dumps([network_config.model_dump(mode="json", exclude={"fuse"}), str(self.teacher_weights)])
        if key not in self._teachers:
            self._teachers.clear()  # one teacher at a time is kept in memory
            network = build_network(network_config, self.store.info, self.store.size)
            load_network(network, self.teacher_weights)
            network.to(self.device).eval().requires_grad_(False)
            self._teachers[key] = network
        teacher = self._teachers[key]
        if isinstance(teacher, TwoBranch):
            assert isinstance(network_config, TwoBranchConfig)
            teacher.fuse = network_config.fuse
        return teacher

    def teacher_cache(self, config: TrialConfig, needed: tuple[str, ...], next_frames: bool) -> TeacherCache | None:
        """The cache of this trial's teacher; all workers together write it where it does not exist yet.

        None where the trial disables it, or where it lacks a map of `needed` or, with `next_frames`, the maps of the
        next images of a video. The teacher then runs at every step.
        """
        plan = self.cache_plan
        if config.teacher is None or config.teacher.cache == "off" or plan is None:
            return None
        if not plan.holds(needed, next_frames):
            missing = set(needed) - set(plan.maps) or {"next frames"}
            self.log(f"teacher cache: {', '.join(sorted(missing))} missing, so this trial runs its teacher live")
            return None
        assert self.teacher_weights is not None
        spec = plan.spec(config, self.store, self.teacher_weights)
        path = spec.found(plan.root)
        if path is None:
            path = spec.folder(plan.root)
            forward = self._teacher_forward(config)
            write_cache(path, spec, forward, lambda done, of: self.log(f"teacher maps: {done}/{of} images"))
            self._teachers.clear()  # no longer needed
        if path not in self._caches:
            self._caches.clear()
            self._caches[path] = TeacherCache(path)
        return self._caches[path]

    def _teacher_forward(self, config: TrialConfig) -> TeacherForward:
        """The teacher as a function of rows of the training split; rows beyond the split are next frames."""
        teacher, split = self.teacher(config), self.store.split("train")
        assert teacher is not None
        batches = Batches(split, self.store.info, config.data, 1, 0, device=self.device)

        @torch.no_grad()
        def forward(rows: NDArray[np.int64]) -> SegOutput:
            teacher.detail_taps = True
            later = rows >= len(split)
            images = [
                batches.whole_images(rows[chosen] - shift, next_frame=shift > 0)
                for chosen, shift in ((~later, 0), (later, len(split)))
                if chosen.any()
            ]
            output: SegOutput = teacher(torch.cat(images))
            return output

        return forward
