"""Names reach MLflow whatever they hold, and different names stay different."""

from __future__ import annotations

import itertools

import pytest
from mlflow.utils.validation import _validate_metric_name, _validate_model_name

from kdsearch.tracking.mlflow.escaping import CUT, LONGEST_NAME, cut, escape, model_name, unescape

CLASSES = (
    "road", "traffic light", "a/b", "/", "//", "a/", "/a", "a//b", ".", "..", "a/../b", "...", "", "tree+", "tree*",
    "50%", "it's", 'the "best"', "a:b", "line\nbreak", "\u00e9t\u00e9", "\u6811", "_x2f_", "_x2f/", "+x2y_",
)  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_mlflow_takes_the_name_of_any_class(name: str) -> None:
    for whole in (f"val/iou/{name}", name or "a"):
        escaped = escape(whole)
        _validate_metric_name(escaped)
        assert unescape(escaped) == whole


def test_different_names_stay_different() -> None:
    names = ["".join(letters) for length in range(1, 6) for letters in itertools.product("_x2f/+.", repeat=length)]
    assert len({escape(name) for name in names}) == len(names)
    assert len({escape(f"val/iou/{letter * 300}{end}") for letter in "ab" for end in "cd"}) == 4


def test_plain_names_stay_as_they_are() -> None:
    for name in ("val/miou", "val/iou/traffic light", "loss/kd", "distill.kd.weight", "cost/params_m", "val/iou/box_x"):
        assert escape(name) == name


def test_a_name_is_no_longer_than_mlflow_takes() -> None:
    assert len(escape("val/iou/" + "+" * 300)) == LONGEST_NAME


@pytest.mark.parametrize("name", ["study", "it's", "a:b", 'the "best"', "50%", "study (2)"])
def test_a_registered_model_has_a_name_of_its_own(name: str) -> None:
    _validate_model_name(model_name(name))
    assert not set("\"'`") & set(model_name(name))
    assert unescape(model_name(name)) == name


def test_a_long_value_shows_that_it_was_cut() -> None:
    assert cut("x" * 10, 10) == "x" * 10
    assert cut("x" * 11, 10) == "x" * (10 - len(CUT)) + CUT
