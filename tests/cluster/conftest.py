from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CLUSTER = REPOSITORY / "cluster"


@pytest.fixture(scope="session")
def pinned() -> dict[str, str]:
    """Version of each package in constraints.txt, by its lower-case name."""
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return {name.lower(): version for name, _, version in (line.partition("==") for line in lines) if version}


def secrets_in(text: str) -> list[str]:
    """Lines that give a secret a literal value: one that is neither a variable, a reference nor a path."""
    literal = re.compile(r"""(?i)(?:password|secret|token)\w*["']?\s*[:=]\s*(?!["']?[$~/{])["']?\w{6,}""")
    return [line for line in text.splitlines() if not line.lstrip().startswith("#") and literal.search(line)]
