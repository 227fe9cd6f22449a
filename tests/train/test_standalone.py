"""Training without a study: what is refused before data are read, and what is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.config.space.search_space import load_space
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.train.standalone import train_standalone
from kdsearch.train.teacher_actions import train_teacher
from tests.conftest import SMALL, config

ONE = SMALL["train"] | {"batch_size": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": SMALL["data"] | {"size": [70, 100]}}, "multiples of 32, not 70x100. The nearest size .* is 64x96"),
        (
            {"data": SMALL["data"] | {"size": [32, 32]}, "train": ONE},
            r"train\.batch_size 1: .*one image of 32x32.* to 2",
        ),
        (
            {"student": {"arch": "deeplabv3plus", "encoder": "mobilenet_v2"}, "train": ONE},
            r"train\.batch_size 1: This network cannot be trained on one image of 32x64 .* Set train.batch_size to 2",
        ),
        (
            {"student": {"arch": "fpn", "encoder": "resnet18", "encoder_weights": "/nowhere"}},
            "encoder weights '/nowhere'",
        ),
        (
            {
                "teacher": {"arch": "fpn", "encoder": "resnet18", "checkpoint": "/nowhere.pt"},
                "distill": {"kd": {"weight": 1.0}},
            },
            "no checkpoint '/nowhere.pt'",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_data_are_read(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train_standalone(config(**changes), RunFolder.at(str(tmp_path / "runs"), "alone"), tmp_path / "out", print)
    assert not list(tmp_path.iterdir())


def test_the_first_line_says_what_is_trained(tmp_path: Path) -> None:
    lines: list[str] = []
    train = SMALL["train"] | {"epochs": 1}
    train_standalone(config(train=train), RunFolder.at(str(tmp_path / "runs"), "alone"), tmp_path / "out", lines.append)
    assert lines[0] == "data scenes: reading 17 images"
    assert lines[1] == (
        "student fpn tu-mobilenetv3_small_050 on cpu: data scenes, 12 images of 32x64, 3 steps per epoch, 1 epochs"
    )
    assert lines[2].startswith("student: about 0.")
    assert "s per epoch" in lines[2]


def test_a_teacher_says_so_before_its_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        "name: tiny\ndata: {name: scenes, size: [32, 64], options: {train: 4, val: 2, height: 32, width: 64}}\n"
        "student: {arch: fpn, encoder: mobilenet_v2}\n"
        "teacher: {arch: fpn, encoder: resnet18, train: {epochs: 2, batch_size: 2}}\n"
        "distill: {kd: {weight: 1.0}}\n"
    )
    lines: list[str] = []

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kdsearch.train.standalone.Trial", stop)
    with pytest.raises(KeyboardInterrupt):
        train_teacher(load_space(space), RunFolder.at(str(tmp_path / "runs"), "teacher"), lines.append)
    assert lines == [
        "data scenes: reading 6 images",
        "teacher fpn resnet18 on cpu: data scenes, 4 images of 32x64, 2 steps per epoch, 2 epochs",
    ]
