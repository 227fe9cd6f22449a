"""The record of a space: it loads as the same space, whatever the folder and the defaults of the version."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.config.data import Augment, DataConfig
from kdsearch.config.networks import CLNetTeacher
from kdsearch.config.space.file import SpaceDocument
from kdsearch.config.space.search_space import SearchSpace, load_space, profile_names, space_from_text
from kdsearch.config.space.shipped import shipped_spaces
from kdsearch.config.training import TrainConfig
from kdsearch.config.trial import TrialConfig

SPACE = """
name: toy
data: {name: folder, path: data/set, size: [64, 96]}
teacher: {arch: fpn, encoder: resnet50, checkpoint: weights/teacher.pt}
student:
  one_of:
    - {arch: fpn, encoder: resnet18, encoder_weights: {choice: [null, a.pth, weights/b.pth], default: a.pth}}
    - {arch: unet, encoder: {choice: [resnet18, mobilenet_v2]}}
distill:
  kd: {one_of: [null, {weight: {log: [0.1, 10]}}], default: on}
  clfd: {one_of: [null, {weight: 2}]}
train: {lr: {log: [1.0e-4, 1.0e-2]}, epochs: 4}
"""


def same(one: SearchSpace, other: SearchSpace) -> None:
    assert other.default() == one.default()
    assert list(other.parameters()) == list(one.parameters())
    assert [sample for _, sample in other.corners()] == [sample for _, sample in one.corners()]
    assert other.search == one.search
    assert other.confirm == one.confirm
    assert other.complete() == one.complete()


@pytest.mark.parametrize("name", shipped_spaces())
def test_the_record_of_a_shipped_space_loads_as_that_space(name: str) -> None:
    for profile in (None, *profile_names(name)):
        space = load_space(name, profile=profile)
        same(space, space_from_text(space.record(), "record"))


def test_relative_paths_are_recorded_as_absolute_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space = space_from_text(SPACE, "toy.yaml")
    text = space.record()
    monkeypatch.chdir("/")
    again = space_from_text(text, "record")
    trial = again.default().trial
    assert trial.data.path == str(tmp_path / "data/set")
    assert trial.teacher is not None
    assert trial.teacher.checkpoint == str(tmp_path / "weights/teacher.pt")
    assert trial.student.encoder_weights == str(tmp_path / "a.pth")  # type: ignore[union-attr]
    assert list(again.parameters()) == list(space.parameters())
    assert again.parameters()["distill.kd"].default == "on"  # labels of branches are as before
    same(again, space_from_text(again.record(), "record"))


def test_other_defaults_of_a_version_do_not_change_a_recorded_space(monkeypatch: pytest.MonkeyPatch) -> None:
    given, text = (space := load_space("clfd", profile="demo")).to_yaml(), space.record()
    before = space.default()
    models = (TrainConfig, Augment, DataConfig, CLNetTeacher, TrialConfig, SpaceDocument)
    for field in (*TrainConfig.model_fields.values(), *Augment.model_fields.values()):
        if type(field.default) is float:
            monkeypatch.setattr(field, "default", field.default / 2)
    try:
        for model in models:
            model.model_rebuild(force=True)
        assert space_from_text(given, "given").default() != before
        assert space_from_text(text, "record").default() == before
    finally:
        monkeypatch.undo()
        for model in models:
            model.model_rebuild(force=True)
