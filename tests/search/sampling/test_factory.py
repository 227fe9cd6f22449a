"""Samplers by name, with options, and from plug-ins."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
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
from kdsearch.testing.samplers import SamplerConformance
from tests.search.conftest import SPACE

PLUGIN = '''
"""Samplers of each kind that a plug-in may list."""
import optuna
from pydantic import BaseModel, ConfigDict




class Built:
    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid")
        population: int = 8

    @staticmethod
    def build(config, seed):
        return optuna.samplers.NSGAIIISampler(population_size=config.population, seed=seed)


class Wrong:
    class Config(BaseModel):
        pass

    @staticmethod
    def build(config, seed):
        return "a sampler"


SAMPLERS = {
    "own_random": optuna.samplers.RandomSampler,
    "nsga3": "optuna.samplers:NSGAIIISampler",
    "built": Built,
    "wrong": Wrong,
    "number": 7,
    "no_class": "optuna.samplers:NSGAIIISamplr",
    "no_module": "no_such_package.samplers:Best",
    "no_colon": "optuna.samplers.NSGAIIISampler",
}
'''


class TestBuiltIn(SamplerConformance):
    @pytest.fixture(
        params=[
            "tpe", "nsga2", "random", "qmc",
            {"name": "tpe", "multivariate": True, "group": True, "n_startup_trials": 2, "n_ei_candidates": 4},
            {"name": "nsga2", "population_size": 4, "crossover_prob": 0.5, "mutation_prob": 0.2},
            pytest.param(
                {"name": "gp", "n_startup_trials": 3, "deterministic_objective": True}, marks=pytest.mark.slow
            ),
            {"name": "qmc", "qmc_type": "halton", "scramble": True},
        ],
        ids=str,
    )  # fmt: skip
    def sampler(self, request: pytest.FixtureRequest) -> Any:
        return request.param


def test_options_reach_the_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(optuna.samplers, "NSGAIISampler", lambda **options: given.update(options))
    config = SearchConfig.model_validate({"sampler": {"name": "nsga2", "population_size": 7}})
    make_sampler(config.sampler, 3)
    assert given == {
        "seed": 3, "population_size": 7, "mutation_prob": None, "crossover_prob": 0.9, "swapping_prob": 0.5
    }  # fmt: skip


def test_missing_packages_of_a_sampler_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = factory.importlib.util.find_spec  # type: ignore[attr-defined]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "scipy" else find(name))
    config = SearchConfig.model_validate({"sampler": "gp"})
    with pytest.raises(UserError, match=r"search\.sampler gp needs scipy: pip install scipy"):
        make_sampler(config.sampler, 0)


# ---- plug-ins --------------------------------------------------------------------------------------------------------


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plug-in above, named in the environment."""
    (tmp_path / "plugin_samplers.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(plugins.VARIABLE, "plugin_samplers")
    monkeypatch.delitem(sys.modules, "plugin_samplers", raising=False)
    plugins.modules.cache_clear()
    yield
    plugins.modules.cache_clear()


@pytest.mark.usefixtures("plugin")
class TestPlugins(SamplerConformance):
    @pytest.fixture(
        params=[
            "own_random",
            {"name": "nsga3", "options": {"population_size": 4}},
            {"name": "built", "options": {"population": 4}},
        ],
        ids=str,
    )
    def sampler(self, request: pytest.FixtureRequest, plugin: None) -> Any:
        return request.param


Make = Callable[[Any], optuna.samplers.BaseSampler]


@pytest.fixture
def make(plugin: None) -> Make:
    return lambda sampler: make_sampler(SearchConfig.model_validate({"sampler": sampler}).sampler, 3)


def test_each_kind_of_entry(make: Make) -> None:
    assert isinstance(make("own_random"), optuna.samplers.RandomSampler)
    for entry in ("nsga3", "built"):
        assert isinstance(make(entry), optuna.samplers.NSGAIIISampler)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("wrong", r"SAMPLERS\['wrong'\]: build returned 'a sampler', not an Optuna sampler"),
        ("number", r"SAMPLERS\['number'\] is 7: expected a class of optuna\.samplers\.BaseSampler"),
        ("no_class", "optuna.samplers has no NSGAIIISamplr. Did you mean 'NSGAIIISampler'"),
        ("no_module", "No module named 'no_such_package'; install the package"),
        ("no_colon", "expected an import path 'package.module:Class'"),
        ({"name": "nsga3", "options": {"population": 4}}, "no option 'population'. Did you mean 'population_size'"),
        ({"name": "nsga3", "options": {"population_size": 1}}, "sampler 'nsga3' refuses them"),
    ],
    ids=str,
)
def test_wrong_entries_and_options_are_one_sentence(make: Make, sampler: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(sampler)


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("ownrandom", "there is no sampler 'ownrandom'. Did you mean 'own_random'"),
        ("{name: built, options: {populaton: 4}}", "populaton"),
    ],
)
def test_a_space_with_a_wrong_name_or_option_is_refused(sampler: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(SPACE.replace("sampler: random", f"sampler: {sampler}"))
    with pytest.raises(UserError, match=message):
        load_space(tmp_path / "toy.yaml")
