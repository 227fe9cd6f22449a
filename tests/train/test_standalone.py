"""A teacher is trained once, whoever asks for it at the same time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kdsearch.config.space.search_space import space_from_text
from kdsearch.data.store.store import Store
from kdsearch.io.run_folder import RunFolder
from kdsearch.train import standalone
from kdsearch.train.standalone import teacher_weights
from kdsearch.train.teacher import teacher_folder

SPACE = """
name: toy
data: {name: scenes, size: [64, 96]}
teacher: {arch: fpn, encoder: resnet18}
student: {arch: fpn, encoder: resnet18}
distill: {kd: {}}
"""


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
