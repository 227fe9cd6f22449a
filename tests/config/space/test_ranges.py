from __future__ import annotations

import json
from typing import Any

import pytest

from kdsearch.config.space.ranges import (
    Choice,
    Int,
    IntLog,
    Log,
    Range,
    RangeError,
    Uniform,
    ends,
    is_range,
    parse_range,
)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"uniform": [0, 1]}, Uniform(0.0, 1.0, 0.5)),
        ({"uniform": [-1, 1], "default": 1}, Uniform(-1.0, 1.0, 1.0)),
        ({"log": [0.01, 100]}, Log(0.01, 100.0, 1.0)),
        ({"log": [0.03, 1], "default": 0.1}, Log(0.03, 1.0, 0.1)),
        ({"int": [1, 4]}, Int(1, 4, 2)),
        ({"int_log": [1, 64]}, IntLog(1, 64, 8)),
        ({"int_log": [1, 2]}, IntLog(1, 2, 1)),
        ({"choice": ["a", "b"]}, Choice(("a", "b"), "a")),
        ({"choice": [1, None], "default": None}, Choice((1, None), None)),
        ({"choice": [[1], {"k": 2}], "default": {"k": 2}}, Choice(([1], {"k": 2}), {"k": 2})),
    ],
)
def test_parse(node: dict[str, Any], expected: Range) -> None:
    parsed = parse_range(node)
    assert parsed == expected
    assert type(parsed.default) is type(expected.default)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"uniform": [1, 1]}, "empty range: 1 is not below 1"),
        ({"int": [3, 2]}, "empty range: 3 is not below 2"),
        (
            {"log": [0, 1]},
            "log cannot start at 0, a log scale never reaches 0: use a small positive lower end, or switch",
        ),
        ({"int_log": [-1, 4]}, r"int_log cannot start at -1.*`one_of: \[null, \{\.\.\.\}\]` branch"),
        ({"uniform": ["a", 1]}, "uniform needs finite numbers, got 'a'"),
        ({"uniform": [0, float("inf")]}, "uniform needs finite numbers, got inf"),
        ({"log": [True, 2]}, "log needs finite numbers, got True"),
        ({"int": [1, 2.5]}, "int needs integers, got 2.5"),
        ({"int": [1, 2], "default": 1.0}, "int needs integers, got 1.0"),
        ({"uniform": [1, 2, 3]}, "uniform needs two numbers"),
        ({"uniform": 1}, "uniform needs two numbers"),
        ({"choice": []}, "choice needs a list of at least one option"),
        ({"choice": "abc"}, "choice needs a list of at least one option"),
        ({"choice": [1, 2, 1]}, "choice has the option 1 twice"),
        ({"choice": [[1], "[1]"]}, "twice"),
        ({"choice": [1, 2], "default": 3}, "default 3 is not one of 1, 2"),
        ({"uniform": [1, 2], "default": 3}, r"default 3 is outside \[1, 2\]"),
        ({"uniform": [1, 2], "log": [1, 2]}, "a range has one kind, found uniform and log"),
        ({"uniform": [1, 2], "defalt": 1}, "unknown key 'defalt' beside 'uniform'. Did you mean 'default'?"),
    ],
)
def test_bad_ranges(node: dict[str, Any], message: str) -> None:
    with pytest.raises(RangeError, match=message):
        parse_range(node)


def test_what_means_to_be_a_range() -> None:
    assert is_range({"choice": 3})
    assert not is_range({"tau": 3})
    assert not is_range(["choice"])


def test_categories_are_scalars_that_lead_back_to_their_options() -> None:
    choice = Choice(("a", None, [1, 2], {"k": [3]}), "a")
    assert choice.categories == ("a", None, "[1, 2]", '{"k": [3]}')
    for option, category in zip(choice.options, choice.categories, strict=True):
        assert choice.option(category) == option
        assert choice.option(option) == option
    assert json.loads(str(choice.categories[3])) == {"k": [3]}
    with pytest.raises(RangeError, match="'b' is not one of 'a', None"):
        choice.option("b")


def test_ends() -> None:
    assert ends(Int(1, 9, 5)) == (1, 9)
    assert ends(Choice(("a", "b", "c"), "a")) == ("a", "b", "c")
