"""Everything that can be wrong with a space: each message with its place and key."""

from __future__ import annotations

import pytest

from kdsearch.errors import UserError
from tests.config.conftest import SPACE, Load


def message_of(load: Load, text: str) -> str:
    with pytest.raises(UserError) as error:
        load(text)
    return str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # Unknown keys, at every level.
        ("confirm:", "confrim:", "25: confrim: unknown key. Did you mean 'confirm'?"),
        ("size: [64, 96]", "size: [64, 96], sise: 1", "3: data.sise: unknown key. Did you mean 'size'?"),
        ("temperature:", "temprature:", "14: distill.soft.temprature: unknown key. Did you mean 'temperature'?"),
        ("queue:", "queu:", "21: distill.contrast[pixel].queu: unknown key. Did you mean 'queue'?"),
        ("  soft:", "  softt:", "14: distill.softt: unknown term. Did you mean 'soft'?"),
        ("width: {int", "wdth: {int", "9: student[clnet].wdth: unknown key. Did you mean 'width'?"),
        ("trials: 12", "trails: 12", "24: search.trails: unknown key. Did you mean 'trials'?"),
        ("encoder: mit_b0, sh", "train: {epoch: 3}, sh", "4: teacher.train.epoch: unknown key. Did you mean 'epochs'?"),
        # Missing keys.
        ("name: small\n", "\n", "space.yaml: name: missing key"),
        (", size: [64, 96]", "", "3: data.size: missing key"),
        ("encoder: {choice: [resnet18, mobilenet_v2]}", "encoder_weights: null", "10: student[fpn].encoder: missing"),
        ("teacher: {arch: clnet, ", "teacher: {", "4: teacher.arch: missing key"),
        # Wrong types and values.
        ("size: [64, 96]", "size: [64]", "3: data.size: too few values, got [64]"),
        ("size: [64, 96]", "size: [1, 2, 3]", "3: data.size: "),
        ("size: [64, 96]", "size: 64", "3: data.size: should be a list, got 64"),
        ("epochs: 9", "epochs: '9'", "23: train.epochs: should be a valid integer, got '9'"),
        ("epochs: 9", "epochs: 9.0", "23: train.epochs: should be a valid integer, got 9.0"),
        ("epochs: 9", "epochs: true", "23: train.epochs: should be a valid integer, got True"),
        ("shared_encoder: false", "shared_encoder: no", "4: teacher.shared_encoder: should be a valid boolean, got"),
        ("shared_encoder: false", "width: 1e999", "4: teacher.width: should be a"),
        ("arch: clnet, enc", "arch: clnt, enc", "4: teacher.arch: unknown arch 'clnt'. Did you mean 'clnet'?"),
        ("    - arch: fpn", "    - arch: fpnn", "10: student[fpnn].arch: unknown arch 'fpnn'. Did you mean 'fpn'?"),
        ("teacher: {arch: clnet, encoder: mit_b0, shared_encoder: false}", "teacher: null",
         "13: distill: distillation needs a teacher: add a `teacher` section, or remove the terms"),
        ('"<= 60"', "60", "24: search.constraints.gflops: should be text such as '<= 60' or '>= 5'"),
        ("trials: 12", "objectives: {iou: max}", "24: search.objectives.iou: should be 'miou', 'gflops', 'params_m'"),
        # Ranges that are not well formed.
        ("log: [0.01, 100]", "log: [0, 100]", "14: distill.soft.weight: log cannot start at 0, a log scale"),
        ("int: [16, 64]", "int: [64, 16]", "9: student[clnet].width: empty range: 64 is not below 16"),
        ("choice: [mit_b0, mit_b1]", "choice: []", "8: student[clnet].encoder: choice needs a list of at least one"),
        ("default: mit_b1", "defalt: mit_b1", "8: student[clnet].encoder: unknown key 'defalt' beside 'choice'"),
        ("uniform: [1, 9]", "unifrom: [1, 9]",
         "14: distill.soft.temperature: should be a valid number, got {'unifrom': [1, 9]}. "
         "If this is meant as a range: Did you mean 'uniform'?"),
        ("size: [64, 96]", "size: [64, {int: [1, 96]}]", "3: data.size: a range inside a list: make the whole list"),
        ("{decoder_channels: [64, 32]}", "{decoder_channels: {int: [1, 2]}}",
         "12: student[fpn].options: a range inside an option of a choice: use one_of"),
        # Ranges whose ends or options are out of the key's domain.
        ("uniform: [1, 9]", "uniform: [1, 30]",
         "14: distill.soft.temperature: should be less than or equal to 20, got 30.0"),
        ("uniform: [1, 9]", "uniform: [0, 9]", "14: distill.soft.temperature: should be greater than 0, got 0.0"),
        ("int: [16, 64]", "uniform: [16, 64]", "9: student[clnet].width: should be a valid integer, got 40.0"),
        ("mit_b0, mit_b1]", "mit_b0, mit_b1, mit_b9]", "8: student[clnet].encoder: should be 'mit_b0', 'mit_b1',"),
        ("int_log: [4, 64]", "log: [4, 64]", "21: distill.contrast[pixel].queue: should be a valid integer, got"),
        # Branches.
        ("    default: proto", "    default: prto", "15: distill.contrast: default 'prto' is no branch. Did you"),
        ("    default: proto", "    default: 3", "15: distill.contrast: default 3 is no branch. Known: none, pixel,"),
        ("    default: proto", "    defualt: proto", "15: distill.contrast: unknown key 'defualt' beside 'one_of'."),
        ("      - null\n", "      - 3\n", "15: distill.contrast: a branch of one_of is a mapping or null, got 3"),
        ("lr: {log: [2e-5, 6e-4], default: 6e-5}, epochs: 9", "one_of: []", "23: train: one_of needs a list of"),
        ("    - arch: fpn\n", "    - null\n    - arch: fpn\n", "5: student[none]: should be a section, got None"),
        # Ranges where all trials are alike.
        ("size: [64, 96]", "size: {choice: [[64, 96]]}", "3: data.size: no range and no one_of here: all trials"),
        ("encoder: mit_b0, sh", "width: {int: [1, 3]}, sh", "4: teacher.width: no range and no one_of here: all"),
        ("trials: 12", "trials: {int: [1, 3]}", "24: search.trials: no range and no one_of here: search is"),
        # YAML.
        ("trials: 12", "trials: 12, trials: 13", "24: trials: duplicate key"),
        ("epochs: 9}", "epochs: 9", "24: not valid YAML: "),
    ],
)  # fmt: skip
def test_one_problem(load: Load, old: str, new: str, message: str) -> None:
    assert SPACE.count(old) >= 1
    error = message_of(load, SPACE.replace(old, new, 1))
    assert error.startswith(message if message.startswith("space.yaml") else f"space.yaml:{message}")


def test_all_problems_are_listed_once_each(load: Load) -> None:
    text = SPACE.replace("temperature", "temprature").replace("trials: 12", "trials: 0").replace("int: [16", "int: [-1")
    text = text.replace("log: [0.01", "log: [0")
    assert message_of(load, text).splitlines() == [
        "space.yaml:14: distill.soft.weight: log cannot start at 0, a log scale never reaches 0: use a small positive "
        "lower end, or switch the term off with a `one_of: [null, {...}]` branch",
        "space.yaml:14: distill.soft.temprature: unknown key. Did you mean 'temperature'?",
        "space.yaml:24: search.trials: should be greater than 0, got 0",
        "space.yaml:9: student[clnet].width: should be greater than 0, got -1",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "space.yaml: should hold the sections data, teacher, student, distill, train, name"),
        ("- a", "space.yaml: should hold the sections"),
        ("{choice: [1]}", "space.yaml: a range or a one_of cannot stand for the whole file"),
    ],
)
def test_not_a_space(load: Load, text: str, message: str) -> None:
    assert message_of(load, text).startswith(message)
