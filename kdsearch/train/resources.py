"""What trials share in one worker process: the device, open data stores and loaded teachers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kdsearch import models
from kdsearch.config.trial import TrialConfig, TwoBranchConfig
from kdsearch.data.loader import Batches
from kdsearch.data.store.store import Store
from kdsearch.models.networks.two_branch import TwoBranch
from kdsearch.models.output import SegOutput
from kdsearch.train.teacher_cache.plan import CachePlan
from kdsearch.train.teacher_cache.reader import TeacherCache
from kdsearch.train.teacher_cache.writer import Ask, write_cache


@dataclass
class Resources:
    """Kept from trial to trial: opening a store or loading a teacher happens once in a worker's life.

    `store` is the folder of the data set's store, `teacher_weights` the file of the trained teacher or None for trials
    that have none. `maps_plan` says which maps of the teacher are cached, and where; without it none are. `say` is told
    about the cache.
    """

    store_path: Path
    teacher_weights: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world_size: int = 1
    maps_plan: CachePlan | None = None
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self.store = Store.open(self.store_path)
        self._teachers: dict[str, models.Network] = {}
        self._maps: dict[Path, TeacherCache] = {}

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

    def teacher_maps(self, config: TrialConfig, needed: tuple[str, ...], next_frames: bool) -> TeacherCache | None:
        """The cached maps of this trial's teacher, written first where they are not there yet (by all workers at once).

        None where the trial does not want them, or where they do not hold all that it needs: the maps named, and with
        `next_frames` those of the next images of a video. Then the teacher has to be asked live.
        """
        plan = self.maps_plan
        if config.teacher is None or config.teacher.cache == "off" or plan is None:
            return None
        if not plan.holds(needed, next_frames):
            missing = set(needed) - set(plan.maps) or {"next frames"}
            self.say(f"teacher cache: it has no {', '.join(sorted(missing))}, so this trial asks the teacher live")
            return None
        assert self.teacher_weights is not None
        spec = plan.spec(config, self.store, self.teacher_weights)
        path = spec.found(plan.root)
        if path is None:
            path = spec.folder(plan.root)
            write_cache(path, spec, self._ask(config), lambda done, of: self.say(f"teacher maps: {done}/{of} images"))
            self._teachers.clear()  # it has been asked for the last time
        if path not in self._maps:
            self._maps.clear()
            self._maps[path] = TeacherCache(path)
        return self._maps[path]

    def _ask(self, config: TrialConfig) -> Ask:
        """Asks the teacher about whole training images; rows beyond the split are next frames."""
        teacher, split = self.teacher(config), self.store.split("train")
        assert teacher is not None
        batches = Batches(split, self.store.info, config.data, 1, 0, device=self.device)

        @torch.no_grad()
        def ask(rows: NDArray[np.int64]) -> SegOutput:
            teacher.detail_taps = True
            later = rows >= len(split)
            images = [
                batches.whole_images(rows[chosen] - shift, next_frame=shift > 0)
                for chosen, shift in ((~later, 0), (later, len(split)))
                if chosen.any()
            ]
            output: SegOutput = teacher(torch.cat(images))
            return output

        return ask
