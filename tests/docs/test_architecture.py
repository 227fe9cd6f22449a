"""docs/architecture.md describes the code as it is: its walks name files and functions that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.blocks import REPOSITORY

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()
STEP = re.compile(r"^\d\. \[`(?P<name>[^`]+)`\]\(\.\./(?P<path>[^)]+)\):(?P<text>.*(?:\n   .*)*)", re.M)
WALKS = {
    title: list(STEP.finditer(text))
    for title, _, text in (section.partition("\n") for section in PAGE.split("\n## ")[1:])
    if STEP.search(text)
}


def defined(path: Path) -> set[str]:
    """Functions and classes of a module, and methods as `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


def test_there_are_five_walks_of_at_most_six_files() -> None:
    assert len(WALKS) == 5
    assert all(2 <= len(steps) <= 6 for steps in WALKS.values())


@pytest.mark.parametrize("title", WALKS)
def test_a_walk_names_what_its_files_define(title: str) -> None:
    for step in WALKS[title]:
        path = REPOSITORY / step["path"]
        assert path == REPOSITORY / "kdsearch" / step["name"]
        first = re.search(r"`([A-Z]\w+(?:\.\w+)?|[a-z_]+)`", step["text"])
        assert first is not None, f"{step['name']}: the step names no function or class"
        assert first[1] in defined(path), f"{step['name']} defines no {first[1]}"


def test_every_package_is_in_the_drawing() -> None:
    drawing = PAGE.partition("```text\n")[2].partition("```")[0]
    packages = {path.parent.name for path in (REPOSITORY / "kdsearch").glob("*/__init__.py")}
    assert packages <= set(re.findall(r"\w+", drawing))
