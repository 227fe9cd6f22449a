"""The space that `--latency` asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.api.space import Space
from kdsearch.config.metrics import main_cost
from kdsearch.config.space.search_space import load_space
from kdsearch.config.target import Target
from kdsearch.errors import UserError


def test_latency_takes_the_place_of_flops() -> None:
    space = Space("clfd", profile="demo", latency="cpu:2").search_space
    assert space.search.objectives == {"miou": "max", "latency_ms": "min"}
    assert space.search.latency == Target("cpu", 2)
    assert main_cost(space.search.objectives) == "latency_ms"


def test_objectives_that_name_latency_stay() -> None:
    wanted = "search.objectives={miou: max, gflops: min, latency_ms: min}"
    space = Space("clfd", profile="demo", latency="cpu").with_overrides([wanted]).search_space
    assert list(space.search.objectives) == ["miou", "gflops", "latency_ms"]


def test_a_space_with_latency_is_written_and_read_again(tmp_path: Path) -> None:
    space = Space("clfd", profile="demo", latency="cuda").with_overrides(["search.constraints={latency_ms: '<= 30'}"])
    (tmp_path / "space.yaml").write_text(space.to_yaml())
    again = load_space(tmp_path / "space.yaml")
    assert again.search == space.search_space.search


def test_bad_requests_are_one_sentence() -> None:
    with pytest.raises(UserError, match="latency should be cpu"):
        Space("clfd", profile="demo", latency="tpu")
    for override in ("objectives={miou: max, latency_ms: min}", "constraints={latency_ms: '<= 3'}"):
        with pytest.raises(UserError, match=r"name it with search\.latency"):
            load_space("clfd", profile="demo", overrides=[f"search.{override}"])
