"""The space that `--latency` asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.cli.space_options import requested_space
from kdsearch.config.search import main_cost
from kdsearch.config.space.search_space import load_space
from kdsearch.config.target import Target
from kdsearch.errors import UserError


def test_latency_takes_the_place_of_flops() -> None:
    space = requested_space("clfd", "demo", [], None, latency="cpu:2")
    assert space.search.objectives == {"miou": "max", "latency_ms": "min"}
    assert space.search.latency == Target("cpu", 2)
    assert main_cost(space.search.objectives) == "latency_ms"


def test_objectives_that_name_latency_stay() -> None:
    wanted = "search.objectives={miou: max, gflops: min, latency_ms: min}"
    space = requested_space("clfd", "demo", [wanted], None, latency="cpu")
    assert list(space.search.objectives) == ["miou", "gflops", "latency_ms"]


def test_a_space_with_latency_is_written_and_read_again(tmp_path: Path) -> None:
    space = requested_space("clfd", "demo", ["search.constraints={latency_ms: '<= 30'}"], None, latency="cuda")
    (tmp_path / "space.yaml").write_text(space.to_yaml())
    again = load_space(tmp_path / "space.yaml")
    assert again.search == space.search


def test_bad_requests_are_one_sentence() -> None:
    with pytest.raises(UserError, match="--latency should be cpu"):
        requested_space("clfd", "demo", [], None, latency="tpu")
    for override in ("objectives={miou: max, latency_ms: min}", "constraints={latency_ms: '<= 3'}"):
        with pytest.raises(UserError, match=r"name it with search\.latency"):
            load_space("clfd", profile="demo", overrides=[f"search.{override}"])
