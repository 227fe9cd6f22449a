"""The library in a script as many people write one: from top to bottom, without a `__main__` guard."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import kdsearch

plan = kdsearch.plan("clfd", set={"train.epochs": 2, "search.rungs": [1]}, trials=2, seconds=60, seconds_per_trial=30)
assert plan.stages, plan.warnings
study = kdsearch.search(
    "clfd",
    set={"train.epochs": 1, "search.rungs": [], "teacher.train.epochs": 1, "data.options": {"train": 8, "val": 4}},
    trials=1,
    confirm=False,
    name="first",
)
assert study.status == "done"
print(study.frontier()["trial"].tolist())
print(kdsearch.load_student(study.export("bundle")).info.name)
"""


@pytest.mark.ray
def test_a_script_plans_searches_and_exports(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "use.py"], cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert done.stdout == "['t0000']\nscenes\n"
    assert (tmp_path / "runs" / "first" / "summary.json").is_file()
