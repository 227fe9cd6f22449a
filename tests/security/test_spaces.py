"""Space and trial files that carry code, blow up or name what is not theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.security.conftest import SPACE, Refused, Trap

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12))


@pytest.mark.parametrize("command", [("run",), ("spaces", "show"), ("train", "--out", "student")])
@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir [{trap}]",
        "!!python/object/new:os.mkdir [{trap}]",
        "!!python/name:os.mkdir {trap}",
        "!!python/object:tests.security.conftest.Trap {{path: {trap}}}",
        "!!python/module:os {trap}",
    ],
)
def test_tags_make_no_objects(command: tuple[str, ...], tag: str, trap: Trap, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text(f"name: evil\ndata: {tag.format(trap=trap.path)}\n")
    assert "evil.yaml:2: not valid YAML: could not determine a constructor" in refused(*command, "evil.yaml")


@pytest.mark.parametrize("text", [LAUGHS, MERGES, "a: &a [*a]\n", "a: &a {b: *a}\n"], ids=range(4))
def test_aliases_do_not_multiply(text: str, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "laughs.yaml").write_text(SPACE + text)
    assert "its aliases expand to more than 100000 values" in refused("run", "laughs.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("a: \x00", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
    ],
    ids=range(4),
)
def test_what_the_parser_cannot_take(text: str, message: str, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text(SPACE + text + "\n")
    assert message in refused("run", "odd.yaml")


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "..", ".x", ""])
def test_a_runs_name_is_no_path(name: str, refused: Refused, space: Path, tmp_path: Path) -> None:
    assert "one plain folder name" in refused("run", str(space), "--name", name)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.encoder=tu-hf-hub:somebody/something", "There is no encoder 'tu-hf-hub:somebody/something'"),
        ("teacher.encoder=../../x", "There is no encoder '../../x'"),
        ("teacher.options={encoder_weights: imagenet}", "'encoder_weights' is not an option of fpn"),
        ("student={arch: os.system, encoder: x}", "unknown arch 'os.system'"),
        ("distill={os.system: {weight: 1}}", "unknown term"),
        ("data.name=os", "os"),
    ],
)
def test_names_that_a_space_gives_are_looked_up(override: str, message: str, refused: Refused, space: Path) -> None:
    assert message in refused("run", str(space), "--set", override)
