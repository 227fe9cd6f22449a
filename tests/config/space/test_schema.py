from __future__ import annotations

import pytest

from kdsearch.config.space.schema import json_schema
from kdsearch.config.space.yaml_tree import parse_yaml
from tests.config.conftest import SPACE

jsonschema = pytest.importorskip("jsonschema")


def valid(text: str) -> bool:
    return bool(jsonschema.Draft202012Validator(json_schema()).is_valid(parse_yaml(text, str)))


@pytest.mark.parametrize(
    ("sampler", "right"),
    [
        ("qmc", True), ("{multivariate: true}", True), ("{name: nsga2, population_size: 9}", True),
        ("cma", False), ("{name: random, multivariate: true}", False), ("{name: tpe, n_startup_trials: few}", False),
    ],
)  # fmt: skip
def test_samplers_by_name_or_with_their_options(sampler: str, right: bool) -> None:
    good = SPACE[: SPACE.index("  broken:")]
    assert valid(good.replace("search: {trials: 12,", f"search: {{sampler: {sampler}, trials: 12,")) is right


def test_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_accepts_spaces() -> None:
    good = SPACE[: SPACE.index("  broken:")]
    assert valid(good)
    assert valid(good.replace("options: {n: 8}", "augment: {scale: {choice: [[1, 2]]}, flip: {uniform: [0, 1]}}"))
    assert valid("name: x\ndata: {name: scenes, size: [8, 8]}\nstudent: {arch: {choice: [fpn, pan]}, encoder: a}\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("temperature:", "temprature:"),
        ("  soft:", "  sofft:"),
        ("queue:", "queu:"),
        ("width: {int", "wdth: {int"),
        ("trials:", "trails:"),
        ("confirm:", "confrim:"),
        ("uniform: [1, 9]", "unifrom: [1, 9]"),
        ("uniform: [1, 9]", "uniform: [1, 9], defalt: 3"),
        ("uniform: [1, 9]", "uniform: [1]"),
        ("log: [0.01, 100]", "log: [0, 100]"),
        ("choice: [mit_b0, mit_b1]", "choice: [mit_b0, mit_b9]"),
        ("int: [16, 64]", "uniform: [16, 64]"),
        ("size: [64, 96]", "size: {choice: [[64, 96]]}"),
        ("encoder: mit_b0, sh", "width: {int: [1, 3]}, sh"),
        (", size: [64, 96]", ""),
        ('"<= 60"', '"< 60"'),
        ("distill: {contrast: null}", "distill: {contrst: null}"),
        ("search: {trials: 2}", "profiles: {}"),
    ],
)
def test_rejects(old: str, new: str) -> None:
    good = SPACE[: SPACE.index("  broken:")]
    assert old in good
    assert not valid(good.replace(old, new, 1))
