"""Samplers by name, with options and from plug-ins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from kdsearch import plugins
from kdsearch.config.search import SearchConfig
from kdsearch.config.space.search_space import load_space
from kdsearch.errors import UserError
from kdsearch.search.sampling import factory
from kdsearch.search.sampling.factory import make_sampler
from tests.search.conftest import SPACE
from tests.search.sampling.cases import BRANCHES, open_study


@pytest.mark.parametrize(
    "sampler",
    [
        "tpe", "nsga2", "random", "qmc",
        "{name: tpe, multivariate: true, group: true, n_startup_trials: 2, n_ei_candidates: 4}",
        "{name: nsga2, population_size: 4, crossover_prob: 0.5, mutation_prob: 0.2}",
        pytest.param("{name: gp, n_startup_trials: 3, deterministic_objective: true}", marks=pytest.mark.slow),
        "{name: qmc, qmc_type: halton, scramble: true}",
    ],
)  # fmt: skip
def test_every_sampler_searches_a_space_with_branches(tmp_path: Path, sampler: str) -> None:
    storage = study(tmp_path, sampler, BRANCHES)
    for step in range(8):
        trial = storage.ask()
        assert trial is not None
        trial.epoch, trial.metrics = 4, {"val/miou": trial.config.train.lr * 10}
        storage.tell(trial, "PRUNED" if step % 3 == 2 else "COMPLETE")
    assert not list(storage.running())
    assert len({r.config.train.lr for r in storage.trials}) > 4


def test_options_reach_the_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(optuna.samplers, "NSGAIISampler", lambda **options: given.update(options))
    config = SearchConfig.model_validate({"sampler": {"name": "nsga2", "population_size": 7}})
    make_sampler(config.sampler, 3)
    assert given == {
        "seed": 3, "population_size": 7, "mutation_prob": None, "crossover_prob": 0.9, "swapping_prob": 0.5
    }  # fmt: skip


def test_a_sampler_whose_packages_are_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    find = factory.importlib.util.find_spec  # type: ignore[attr-defined]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "scipy" else find(name))
    config = SearchConfig.model_validate({"sampler": "gp"})
    with pytest.raises(UserError, match=r"search\.sampler gp needs scipy: pip install scipy"):
        make_sampler(config.sampler, 0)


