"""Trials of spatial-temporal consistency distillation: two frames, an adversary, a two-branch teacher."""

from __future__ import annotations

from typing import Any

from kdsearch.config.trial import TrialConfig
from tests.conftest import config

TWO_BRANCH = {
    "arch": "two_branch",
    "cnn": {"arch": "fpn", "encoder": "tu-mobilenetv3_small_050"},
    "transformer": {"arch": "segformer", "encoder": "mit_b0"},
}
TERMS: dict[str, Any] = {
    "kd": {},
    "stc_pair": {"weight": 10.0},
    "adversarial": {"weight": 0.01, "width": 8},
    "stc_motion": {"weight": 1.0},
}


def stc(frames: str = "video", fuse: str = "mean_prob", **changes: Any) -> TrialConfig:
    base = config()
    data = base.data.model_dump(mode="json") | {"frames": frames, "consistency": True}
    return config(data=data, teacher=TWO_BRANCH | {"fuse": fuse}, **({"distill": TERMS} | changes))
