"""The timed parts of a step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdsearch.data.store.store import Store
from kdsearch.planning import measure
from kdsearch.planning.measure import measurable, random_store
from tests.conftest import TEACHER, config, distilled


def test_measuring_needs_no_weights_and_no_cache() -> None:
    teacher = {**TEACHER, "encoder_weights": "imagenet", "checkpoint": "/nowhere.pt", "cache": "taps"}
    student = {"arch": "fpn", "encoder": "mobilenet_v2", "encoder_weights": "imagenet"}
    trial = measurable(config(student=student, teacher=teacher, distill={"kd": {}}), 2)
    assert trial.teacher is not None
    assert (trial.student.encoder_weights, trial.teacher.encoder_weights) == (None, None)  # type: ignore[union-attr]
    assert (trial.teacher.checkpoint, trial.teacher.cache, trial.train.batch_size) == (None, "off", 2)


def test_a_measured_step_has_all_its_parts(store: Store, tmp_path: Path) -> None:
    drawn = random_store(tmp_path / "store", store.info, (32, 64), 4)
    said: list[str] = []
    result = measure.measure(distilled(), drawn.path, tmp_path, 2, 4, torch.device("cpu"), said.append)
    assert result.images == 2
    assert set(result.terms) == {"dsrd", "clfd"}
    assert min(result.alone, result.val, result.teacher, *result.terms.values()) > 0
    assert result.whole > result.alone
    assert {"student", "teacher", "activations", "dsrd", "clfd"} <= result.memory.keys()
    # Activations and terms are those of a batch of 4, whatever was timed.
    again = measure.measure(distilled(), drawn.path, tmp_path, 4, 4, torch.device("cpu"), said.append)
    assert again.memory["activations"] == pytest.approx(result.memory["activations"], rel=0.1)
    assert again.memory["clfd"] == result.memory["clfd"]
    assert "the term clfd" in said
