"""`kdsearch plan`, from the command line to the tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdsearch.cli.main import main
from kdsearch.config.space.search_space import SearchSpace


@pytest.mark.slow
def test_a_plan_starts_and_leaves_nothing(
    space: SearchSpace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("a plan starts no Ray"))
    arguments = ["plan", str(tmp_path / "tiny.yaml"), "--slots", "2", "--seconds", "40"]
    assert main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["images"] == {"train": 40, "val": 10}
    assert [stage["name"] for stage in plan["stages"]][-2:] == ["search", "confirm"]
    assert plan["rows"][0]["full_s"] > 9 * plan["rows"][0]["epoch_s"]
    assert 0 < plan["teacher_share"] < 1
    low, high = plan["total"]["slot_s"]
    assert low < high
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "full training" in shown
    assert "as many stopped at every rung as allowed" in shown


def test_a_plan_refuses_what_a_study_would(
    capsys: pytest.CaptureFixture[str], space: SearchSpace, tmp_path: Path
) -> None:
    path = str(tmp_path / "tiny.yaml")
    assert main(["plan", path, "--workers-per-trial", "3"]) == 2
    assert "does not divide over 3 workers" in capsys.readouterr().err
    assert main(["plan", path, "--set", "search.constraints={gflops: '<= 0.000001'}"]) == 2
    assert "keeps its constraints" in capsys.readouterr().err
