"""Plans of the teacher cache: terms, space on disk, settings."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.train.teacher_cache.plan import plan_cache
from kdsearch.train.trial import Trial
from tests.conftest import config
from tests.train.teacher_cache.cases import cache_resources, cached


def test_plans_follow_requirements_and_free_space(
    store: Store, teacher_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [cached("views"), cached("views", distill={"kd": {}})]

    def planned(mode: str) -> Any:
        changed = [
            each.model_copy(update={"teacher": each.teacher.model_copy(update={"cache": mode})})  # type: ignore[union-attr]
            for each in both
        ]
        return plan_cache(changed, store, tmp_path, teacher_weights)

    assert planned("off") == plan_cache([config()], store, tmp_path) != planned("taps")
    assert planned("off").plan is None
    assert planned("taps").plan.maps == planned("auto").plan.maps == ("head", "logits")
    assert planned("logits").plan.maps == ("logits",)
    assert "run the teacher live" in planned("logits").why
    assert "head, logits of 12 images, fp16" in planned("taps").why
    taps, logits = (planned(mode).plan.nbytes(both[0], store) for mode in ("taps", "logits"))

    def room(free: float) -> None:
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    room(4 * taps)
    assert planned("auto").plan.maps == ("head", "logits")
    room(4 * logits)
    assert planned("auto").plan.maps == ("logits",)
    room(logits)
    assert planned("auto").plan is None
    assert "the teacher runs live" in planned("auto").why
    with pytest.raises(UserError, match=r"teacher.cache is taps: .* make room, or set teacher.cache to auto"):
        planned("taps")
    with pytest.raises(UserError, match="every trial of this space reads taps"):
        plan_cache([cached("views", cache="logits")], store, tmp_path, teacher_weights)


def test_an_existing_cache_is_used_whatever_space_is_left(
    store: Store, teacher_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = cached(cache="auto")
    Trial(trial, cache_resources(trial, store, teacher_weights, tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    assert plan_cache([trial], store, tmp_path, teacher_weights).plan is not None


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"cache": "head"}, "off"),
        ({"cache_format": "uint8", "cache": "off"}, "set cache to auto"),
        ({"cache_top_k": -1}, "greater than or equal to 0"),
        ({"cache_format": "fp32"}, "fp16"),
    ],
)
def test_settings_are_checked(teacher: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cached(**teacher)
