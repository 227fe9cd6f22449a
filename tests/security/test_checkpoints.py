"""Weights and checkpoints that carry code, or are damaged in any way."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.io.state_dict import read_state
from kdsearch.models.student import load_student
from kdsearch.train.memory import TrialError
from kdsearch.train.resources import Resources
from kdsearch.train.trial import Trial
from tests.conftest import config
from tests.export.cases import student_folder
from tests.security.conftest import Refused, Trap

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")


def hostile(trap: Trap, kind: str) -> bytes:
    """A checkpoint that holds the trap, as PyTorch's zip, its old format or a plain pickle."""
    content = {"state_dict": {"weight": torch.zeros(2)}, "optimizer": trap}
    file = io.BytesIO()
    if kind == "pickle":
        pickle.dump(trap, file)
    else:
        torch.save(content, file, _use_new_zipfile_serialization=kind == "zip")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["zip", "old", "pickle"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_weights_that_carry_code(kind: str, suffix: str, trap: Trap, tmp_path: Path) -> None:
    (tmp_path / f"weights{suffix}").write_bytes(hostile(trap, kind))
    with pytest.raises(UserError, match="cannot be read as plain weights"):
        read_state(tmp_path / f"weights{suffix}")


@pytest.mark.slow
@pytest.mark.parametrize("key", ["teacher.checkpoint", "teacher.encoder_weights", "student.encoder_weights"])
def test_a_study_refuses_them_before_it_starts(
    key: str, trap: Trap, refused: Refused, space: Path, tmp_path: Path
) -> None:
    (tmp_path / "weights.pt").write_bytes(hostile(trap, "zip"))
    message = refused("run", str(space), "--name", "x", "--set", f"{key}={tmp_path / 'weights.pt'}")
    assert "cannot be read as plain weights" in message
    assert not (tmp_path / "runs" / "x").exists()


@pytest.mark.parametrize("kind", ["zip", "old", "pickle"])
def test_a_trial_does_not_go_on_from_a_checkpoint_that_carries_code(
    kind: str, trap: Trap, store: Store, tmp_path: Path
) -> None:
    trial = Trial(config(), Resources(store.path, None, torch.device("cpu")))
    (tmp_path / "t0000.pt").write_bytes(hostile(trap, kind))
    with pytest.raises(TrialError, match=r"the checkpoint .*t0000\.pt cannot be read; delete it and resume"):
        trial.load(tmp_path / "t0000.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_any_damage_ends_in_the_same_sentence(zipped: bool, tmp_path: Path) -> None:
    file = io.BytesIO()
    torch.save({"a": torch.ones(3), "b": [1, 2.0, "c"]}, file, _use_new_zipfile_serialization=zipped)
    whole, rng, path = file.getvalue(), np.random.default_rng(0), tmp_path / "weights.pt"
    sentences = []
    for _ in range(150):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 6)):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged if rng.random() < 0.8 else damaged[: rng.integers(len(whole))])
        try:
            read_state(path)
        except UserError as error:
            sentences.append(str(error))
    assert len(sentences) > 50
    assert not any("\n" in sentence for sentence in sentences)


def test_a_student_from_elsewhere_reads_its_own_files_alone(trap: Trap, store: Store, tmp_path: Path) -> None:
    folder = student_folder(tmp_path / "student", store)
    about = json.loads((folder / "config.json").read_text())
    (tmp_path / "elsewhere.pt").write_bytes(hostile(trap, "zip"))
    for weights in (str(tmp_path / "elsewhere.pt"), "imagenet"):  # neither is read, nor downloaded
        about["network"]["encoder_weights"] = weights
        (folder / "config.json").write_text(json.dumps(about))
        load_student(folder)
    (folder / "model.safetensors").write_bytes(hostile(trap, "zip"))
    with pytest.raises(UserError, match="cannot be read as plain weights"):
        load_student(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"network": {"arch": "fpn", "encoder": "tu-hf-hub:somebody/something"}},
        {"network": {"arch": "fpn", "encoder": "resnet18", "options": {"encoder_weights": "imagenet"}}},
        {"network": {"arch": "os.system", "encoder": "resnet18"}},
        {"size": ["32", "x"]},
        {"size": 5},
        {"dataset": {"__class__": "x"}},
        {"dataset": []},
        {"format": 2},
    ],
)
def test_a_student_that_describes_something_else(change: dict[str, object], store: Store, tmp_path: Path) -> None:
    folder = student_folder(tmp_path / "student", store)
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | change))
    with pytest.raises(UserError):
        load_student(folder)


@pytest.mark.parametrize("text", ["[]", "5", "{", "\x00", "[" * 100_000, '{"format": 1}'])
def test_a_student_whose_description_is_none(text: str, store: Store, tmp_path: Path) -> None:
    folder = student_folder(tmp_path / "student", store)
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError):
        load_student(folder)
