"""Trials with two frames per image."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.train.resources import Resources
from kdsearch.train.trial import Trial
from tests.train.stc_cases import TERMS, stc
from tests.train.test_trial import assert_same


@pytest.mark.parametrize("frames", ["video", "views"])
def test_saved_and_loaded_training_equals_training_at_once(
    frames: str, stc_resources: Resources, tmp_path: Path
) -> None:
    whole = Trial(stc(frames), stc_resources)
    for _ in range(3):
        metrics = whole.train_epoch() | whole.validate()
    first = Trial(stc(frames), stc_resources)
    first.train_epoch()
    first.save(tmp_path / "state.pt", {})
    second = Trial(stc(frames), stc_resources)
    second.load(tmp_path / "state.pt")
    for _ in range(2):
        resumed = second.train_epoch() | second.validate()
    assert_same(whole, second)
    assert {k: v for k, v in metrics.items() if "time/" not in k} == {
        k: v for k, v in resumed.items() if "time/" not in k
    }
    assert {f"loss/{name}" for name in TERMS} | {"loss/adversarial_opponent"} <= metrics.keys()
    assert 0 <= metrics["val/temporal_consistency"] <= 1


def test_micro_batches_split_frames_too(stc_resources: Resources) -> None:
    trial = Trial(stc(), stc_resources)
    trial.micro_batches = 2
    assert trial.train_epoch()["loss/stc_motion"] > 0


def test_views_are_taken_where_they_are_wanted(stc_resources: Resources) -> None:
    assert Trial(stc("views"), stc_resources).train_batches.frames == "views"
    assert Trial(stc("auto"), stc_resources).train_batches.frames == "video"
    assert Trial(stc(distill={"kd": {}}), stc_resources).train_batches.frames is None
