"""`kdsearch train`: one trial in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.train import standalone
from kdsearch.train.memory import DoesNotFitError
from kdsearch.train.standalone import train_standalone
from tests.conftest import TEACHER, config

ONE_EPOCH = {"epochs": 1, "batch_size": 4, "lr": 1e-3}


def test_a_trial_without_terms_trains_no_teacher(tmp_path: Path) -> None:
    lines: list[str] = []
    folder = RunFolder.at(str(tmp_path), "alone")
    train_standalone(config(teacher=TEACHER, train=ONE_EPOCH), folder, tmp_path / "student", lines.append)
    assert (tmp_path / "student" / "model.safetensors").exists()
    assert not folder.teachers.exists()
    assert not [line for line in lines if line.startswith("teacher")]


def test_a_trial_that_does_not_fit_on_the_device_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise DoesNotFitError("out of device memory while building the trial")

    monkeypatch.setattr(standalone, "Trial", full)
    folder = RunFolder.at(str(tmp_path), "alone")
    with pytest.raises(UserError, match=r"^the student cannot be trained: out of device memory while building"):
        train_standalone(config(train=ONE_EPOCH), folder, tmp_path / "student", lambda line: None)
    assert not (tmp_path / "student").exists()
