"""The teacher of a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.config.space.search_space import load_space
from kdsearch.data.store.store import Store
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.costs import Costs
from kdsearch.search.teacher import StudyTeacher

SPACE = """
name: toy
data: {name: scenes, size: [32, 64], options: {train: 12, val: 5, height: 32, width: 64}}
teacher: {arch: fpn, encoder: resnet18, train: {epochs: 1, batch_size: 4}}
student: {arch: fpn, encoder: tu-mobilenetv3_small_050}
train: {lr: {log: [1.0e-4, 1.0e-2], default: 1.0e-3}, epochs: 1, batch_size: 4}
"""


@pytest.mark.parametrize(
    ("distill", "trains"),
    [
        ("", False),
        ("distill: {kd: {weight: 1}}", True),
        ("distill: {one_of: [{}, {kd: {weight: 1}}]}", True),
    ],
)
def test_a_teacher_is_trained_only_where_a_trial_reads_it(
    distill: str, trains: bool, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "toy.yaml").write_text(SPACE + distill)
    space = load_space(tmp_path / "toy.yaml")
    run = RunFolder.at(str(tmp_path), "run")
    teacher = StudyTeacher(space, store, run, Costs(space, store))
    assert (teacher.training() is not None) is trains
    assert (teacher.weights is not None) is trains
