from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kdsearch.config.space.flatten import flatten, trial_key
from kdsearch.config.space.trial_file import dump_trial, load_trial
from kdsearch.config.trial import TrialConfig
from kdsearch.errors import UserError
from tests.config.conftest import Contrast, Load, Soft

TREE: dict[str, Any] = {
    "data": {"name": "scenes", "size": [64, 96]},
    "teacher": {"arch": "clnet", "encoder": "mit_b0"},
    "student": {"arch": "fpn", "encoder": "resnet18", "options": {"decoder": {"channels": [1, 2]}}},
    "distill": {"contrast": {"tau": 0.3, "layers": [3]}},
}


def test_terms_are_read_as_their_own_config() -> None:
    trial = TrialConfig.model_validate(TREE)
    assert trial.distill == {"contrast": Contrast(tau=0.3, layers=(3,))}
    assert trial.model_dump(mode="json")["distill"] == {
        "contrast": {
            "weight": 1.0, "warmup_epochs": 0, "decay": 0.0, "tau": 0.3, "mode": "proto", "layers": [3], "queue": 60,
        }
    }  # fmt: skip
    assert TrialConfig.model_validate({**TREE, "distill": {"soft": Soft(temperature=2)}}).distill["soft"] == Soft(
        temperature=2
    )


@pytest.mark.parametrize(
    ("distill", "message"),
    [
        ({"sofft": {}}, "unknown term. Did you mean 'soft'?"),
        ({"soft": {"tau": 1}}, "distill.soft.tau\n  unknown key."),
        ({"soft": {"temperature": "2"}}, "distill.soft.temperature\n  Input should be a valid number"),
        ({"soft": Contrast()}, "distill.soft\n  Input should be a valid dictionary"),
        ({"soft": None}, "distill.soft\n  Input should be a valid dictionary"),
        ({"soft": {"weight": 0}, "contrast": {"tau": 0}}, "2 validation errors"),
        ([], "distill\n  Input should be a valid dictionary"),
    ],
)
def test_term_errors(distill: Any, message: str) -> None:
    with pytest.raises(ValidationError) as error:
        TrialConfig.model_validate({**TREE, "distill": distill})
    assert message in str(error.value)


def test_terms_need_a_teacher() -> None:
    with pytest.raises(ValidationError, match="distillation needs a teacher"):
        TrialConfig.model_validate({**TREE, "teacher": None})
    assert TrialConfig.model_validate({**TREE, "teacher": None, "distill": {}}).teacher is None


def test_numbers_are_finite() -> None:
    with pytest.raises(ValidationError, match="finite number"):
        TrialConfig.model_validate({**TREE, "train": {"lr": float("inf")}})


def test_flatten() -> None:
    row = flatten(TrialConfig.model_validate(TREE))
    assert row["data.size"] == "[64, 96]"
    assert row["data.path"] is None
    assert row["teacher.train.epochs"] == 200
    assert row["student.encoder"] == "resnet18"
    assert row["student.options.decoder.channels"] == "[1, 2]"
    assert row["distill.contrast.tau"] == 0.3
    assert not any(isinstance(value, list | dict) for value in row.values())


def test_key_is_stable_and_tells_trials_apart() -> None:
    trial = TrialConfig.model_validate(TREE)
    assert trial_key(trial) == trial_key(TrialConfig.model_validate_json(json.dumps(TREE)))
    assert trial_key(trial) == trial_key(TrialConfig.model_validate(dict(reversed(TREE.items()))))
    assert len(trial_key(trial)) == 16
    assert set(trial_key(trial)) <= set("0123456789abcdef")
    other = trial.model_copy(update={"train": trial.train.model_copy(update={"seed": 1})})
    assert trial_key(other) != trial_key(trial)


def test_a_trial_file_round_trips(load: Load, in_folder: Path) -> None:
    trial = load().default().trial
    (in_folder / "trial.yaml").write_text(dump_trial(trial))
    assert load_trial("trial.yaml") == trial


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size:", "sise:", "trial.yaml:3: data.sise: unknown key. Did you mean 'size'?"),
        (
            "tau: 0.3",
            "tau: {log: [0.1, 1]}",
            "trial.yaml:10: distill.contrast.tau: a trial has one value here,",
        ),
        ("tau: 0.3", "tua: 0.3", "trial.yaml:10: distill.contrast.tua: unknown key. Did you mean 'tau'?"),
        ("data:", "nam: x\ndata:", "trial.yaml:1: nam: unknown key."),
    ],
)
def test_trial_file_errors(in_folder: Path, old: str, new: str, message: str) -> None:
    text = (
        "data:\n  name: scenes\n  size: [64, 96]\nteacher:\n  arch: clnet\nstudent:\n  arch: clnet\n"
        "distill:\n  contrast:\n    tau: 0.3\n"
    )
    (in_folder / "trial.yaml").write_text(text)
    assert load_trial(in_folder / "trial.yaml").distill["contrast"] == Contrast(tau=0.3)
    (in_folder / "trial.yaml").write_text(text.replace(old, new))
    with pytest.raises(UserError) as error:
        load_trial(in_folder / "trial.yaml")
    assert message in str(error.value)


def test_no_trial_file(in_folder: Path) -> None:
    with pytest.raises(UserError, match=r"^x.yaml: no such file.$"):
        load_trial("x.yaml")
