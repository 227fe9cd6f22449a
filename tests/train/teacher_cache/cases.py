"""Trials that read a teacher cache, and their resources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdsearch.config.trial import TrialConfig
from kdsearch.data.store.store import Store
from kdsearch.train.resources import Resources
from kdsearch.train.teacher_cache.plan import plan_cache
from tests.conftest import TEACHER, config

TERMS: dict[str, Any] = {"kd": {}, "cwd_feature": {"tap": "head"}, "stc_motion": {"weight": 0.1}}
STILL = {"augment": {"scale": [1, 1], "flip": 0.0, "jitter": 0.0}}
HALF = 2**-11


def cached(frames: str = "auto", distill: dict[str, Any] | None = None, data: dict[str, Any] | None = None,
           **teacher: Any) -> TrialConfig:  # fmt: skip
    everything = config().data.model_dump(mode="json") | {"frames": frames} | (data or {})
    return config(
        data=everything, teacher=TEACHER | {"cache": "taps"} | teacher, distill=TERMS if distill is None else distill
    )


def cache_resources(trial: TrialConfig, store: Store, weights: Path, root: Path) -> Resources:
    plan = plan_cache([trial], store, root, weights).plan
    return Resources(store.path, weights, cache_plan=plan)


def live(trial: TrialConfig) -> TrialConfig:
    assert trial.teacher is not None
    return trial.model_copy(update={"teacher": trial.teacher.model_copy(update={"cache": "off"})})


def whole_maps(shared: Resources, trial: TrialConfig, rows: np.ndarray[Any, Any]) -> dict[str, torch.Tensor]:
    output = shared._teacher_forward(trial)(rows)
    return output.taps | {"logits": output.logits}
