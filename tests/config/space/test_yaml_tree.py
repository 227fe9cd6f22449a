from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdsearch.config.space.yaml_tree import copy, dump_yaml, parse_yaml
from kdsearch.errors import UserError


def parse(text: str) -> Any:
    return parse_yaml(text, lambda line: f"f.yaml:{line}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6e-5", 6e-5), ("1E3", 1000.0), ("-.5", -0.5), ("2.", 2.0), ("1.5e+3", 1500.0),
        ("12", 12), ("-3", -3), ("0", 0),
        ("true", True), ("False", False),
        ("on", "on"), ("off", "off"), ("yes", "yes"), ("No", "No"), ("y", "y"),
        ("12:30", "12:30"), ("2024-01-01", "2024-01-01"), ("010", "010"), ("1_000", "1_000"),
        ("null", None), ("~", None), ("", None), ("'1'", "1"), ("e5", "e5"), ("1e", "1e"),
    ],
)  # fmt: skip
def test_scalars(text: str, value: Any) -> None:
    parsed = parse(f"k: {text}")["k"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_each_key_knows_its_line() -> None:
    tree = parse("a: 1\nb:\n  c: 2\n  d: {e: 3,\n      f: 4}\n")
    assert tree.origins == {"a": "f.yaml:1", "b": "f.yaml:2"}
    assert tree["b"].origins == {"c": "f.yaml:3", "d": "f.yaml:4"}
    assert tree["b"]["d"].origins == {"e": "f.yaml:4", "f": "f.yaml:5"}


def test_all_duplicate_keys_are_named() -> None:
    with pytest.raises(UserError) as error:
        parse("a: 1\nb: {c: 1, c: 2}\na: 2\n")
    assert str(error.value).splitlines() == ["f.yaml:3: a: duplicate key", "f.yaml:2: c: duplicate key"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2\nb: 3", "f.yaml:2: not valid YAML"),
        ("a: 1\n 2: b: c", "f.yaml:2: not valid YAML"),
        ("1: a", "f.yaml:1: a key must be text, got 1"),
        ("[1]: a", "f.yaml:1: a key must be text"),
        ("a: !!python/object:os.system x", "f.yaml:1: not valid YAML"),
        ("a: !!binary x", "f.yaml:1: not valid YAML"),
        ("a: &x {b: *x}", "f.yaml:1: not valid YAML"),
        ("a: \x00", "f.yaml:1: not valid YAML"),
        ("a: 1\n---\nb: 1", "not valid YAML"),
    ],
)
def test_bad_yaml(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(text)


def test_text_that_is_not_utf_8() -> None:
    with pytest.raises(UserError, match=r"^f.yaml:1: not valid YAML: unacceptable character"):
        parse_yaml("a: é".encode("latin-1"), lambda line: f"f.yaml:{line}")


def test_merge_keys_and_aliases() -> None:
    tree = parse("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n")
    assert tree["b"] == {"x": 1, "y": 3}
    unshared = copy(tree)
    unshared["a"].put("x", 9, "here")
    assert unshared["c"]["x"] == 1
    assert tree["a"]["x"] == 1


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")))
    | st.sampled_from(["1e5", "6e-5", "yes", "on", "010", "1:30", "null", "~", "<<", ".5", "2024-01-01", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab1e ~", max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_dump_round_trips(value: Any) -> None:
    assert parse(dump_yaml({"k": value})) == {"k": value}
