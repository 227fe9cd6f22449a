"""The spaces that kdsearch ships load, with every term they name, and load no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
from kdsearch.config.space.schema import json_schema
from kdsearch.config.space.search_space import load_space, profile_names
from kdsearch.config.space.shipped import shipped_spaces
for name in shipped_spaces():
    space = load_space(name)
    assert space.name == name and space.description
    space.default()
    for profile in profile_names(name):
        load_space(name, profile=profile)
json_schema()
print(sorted({'torch', 'ray', 'mlflow', 'optuna'} & set(sys.modules)))
"""

SHOW = """
import sys
from kdsearch.cli.main import main
main(["spaces", "show", "clfd"])
print(sorted({'torch', 'ray', 'mlflow', 'optuna'} & set(sys.modules)))
"""


@pytest.mark.parametrize("code", [CODE, SHOW], ids=["load_space", "spaces show"])
def test_no_torch(code: str) -> None:
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.splitlines()[-1] == "[]"
