"""Training without a study: one teacher for all, requests that are refused before data are read, the first lines."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kdsearch.config.space.search_space import load_space, space_from_text
from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.train import standalone
from kdsearch.train.standalone import teacher_weights, train_standalone
from kdsearch.train.teacher import teacher_folder
from kdsearch.train.teacher_actions import train_teacher
from tests.conftest import SMALL, config

SPACE = """
name: toy
data: {name: scenes, size: [64, 96]}
teacher: {arch: fpn, encoder: resnet18}
student: {arch: fpn, encoder: resnet18}
distill: {kd: {}}
"""
ONE = SMALL["train"] | {"batch_size": 1}


def test_two_at_once_train_it_once(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Path] = []
    said: list[str] = []

    def train(config: Any, store: Any, weights: Any, plan: Any, target: Path, label: str, log: Any) -> None:
        trained.append(target)
        time.sleep(0.5)
        (target / "model.safetensors").write_text(f"weights {len(trained)}")

    monkeypatch.setattr(standalone, "_train", train)
    config, folder = space_from_text(SPACE, "toy").default().trial, RunFolder(tmp_path / "runs" / "x")
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(teacher_weights(config, store, folder, said.append)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trained) == 1
    assert len(set(found)) == 1
    assert found[0].read_text() == "weights 1"
    assert sum("another process trains the teacher" in line for line in said) == 2


def test_the_name_of_a_teacher_follows_the_content_of_its_weights(tmp_path: Path, store: Store) -> None:
    def name(encoder: Path) -> str:
        text = SPACE.replace("resnet18}\nstudent", f"resnet18, encoder_weights: {encoder}}}\nstudent")
        return teacher_folder(space_from_text(text, "toy").default().trial, store, tmp_path).name

    one, same, other = (tmp_path / each for each in ("one.pt", "same.pt", "other.pt"))
    one.write_text("1")
    same.write_text("1")
    other.write_text("2")
    before = name(one)
    assert name(same) == before != name(other)
    one.write_text("3")
    assert name(one) != before


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
