from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from kdsearch.cli.output import print_json
from kdsearch.io.atomic import write_json
from kdsearch.io.json_text import finite, to_json, with_nulls


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_lacks_is_named(number: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"JSON has no {number}, which is the value of frontier\[1\].miou"):
        write_json(tmp_path / "a.json", {"frontier": [{"miou": 0.5}, {"miou": number}]})
    assert list(tmp_path.iterdir()) == []


def test_other_values_are_as_in_json() -> None:
    value = {"a": [1, 2.5, None, "x"], "b": {"c": True}}
    assert to_json(value) == json.dumps(value)
    assert to_json(value, indent=2, sort_keys=True) == json.dumps(value, indent=2, sort_keys=True)
    with pytest.raises(TypeError):
        to_json({1, 2})


def test_commands_print_null_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"metrics": {"val/miou": math.nan}, "ids": (1, math.inf)})
    assert json.loads(capsys.readouterr().out) == {"metrics": {"val/miou": None}, "ids": [1, None]}


def test_metrics_of_nothing_are_left_out() -> None:
    assert finite({"a": 1.0, "b": math.nan, "c": math.inf}) == {"a": 1.0}
    assert with_nulls({"a": [math.nan, {"b": 1.0}]}) == {"a": [None, {"b": 1.0}]}
