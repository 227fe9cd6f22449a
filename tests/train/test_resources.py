"""Teachers that trials share."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.train import standalone
from kdsearch.train.memory import DoesNotFitError
from kdsearch.train.resources import Resources
from kdsearch.train.standalone import train_standalone
from kdsearch.train.teacher import teacher_folder
from kdsearch.train.trial import Trial
from tests.conftest import TEACHER, config
from tests.train.stc_cases import stc


def test_all_fusions_share_a_teacher(stc_resources: Resources, store: Store, tmp_path: Path) -> None:
    folders = {teacher_folder(stc(fuse=fuse), store, tmp_path) for fuse in ("mean_prob", "gate", "max_conf")}
    assert len(folders) == 1
    teachers = [Trial(stc(fuse=fuse), stc_resources).teacher for fuse in ("mean_prob", "gate")]
    assert teachers[0] is teachers[1]
    assert teachers[0].fuse == "gate"  # type: ignore[union-attr]


def test_a_teacher_without_terms_is_not_loaded(stc_resources: Resources) -> None:
    assert Trial(stc(distill={}), stc_resources).teacher is None


ONE_EPOCH = {"epochs": 1, "batch_size": 4, "lr": 1e-3}


def test_a_single_trial_without_terms_trains_no_teacher(tmp_path: Path) -> None:
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
