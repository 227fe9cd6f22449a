from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.config.trial import TrialConfig

SPACE = """
name: toy
data: {name: scenes, size: [64, 96]}
teacher: {arch: fpn, encoder: resnet50}
student:
  arch: fpn
  encoder: {choice: [resnet18, resnet34, mobilenet_v2]}
distill: {kd: {weight: {log: [0.1, 10], default: 1}}}
train: {lr: {log: [1.0e-4, 1.0e-2], default: 1.0e-3}, epochs: 4}
search: {trials: 8, constraints: {gflops: "<= 5"}, sampler: random, rungs: [2], stop: pareto, reduction: 2}
"""
COST = {"resnet18": 3.0, "resnet34": 9.0, "mobilenet_v2": 1.0}


def cost_of(config: TrialConfig) -> dict[str, float]:
    assert config.student.arch == "fpn"
    return {"gflops": COST[config.student.encoder], "params_m": 1.0}


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    (tmp_path / "toy.yaml").write_text(SPACE)
    return load_space(tmp_path / "toy.yaml")
