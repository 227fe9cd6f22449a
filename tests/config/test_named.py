"""Samplers and stop rules of plug-ins in the `search` section."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from kdsearch import plugins
from kdsearch.config.sampler import PluginSamplerConfig
from kdsearch.config.search import SearchConfig
from kdsearch.config.space.schema import json_schema
from kdsearch.errors import UserError
from tests.config.conftest import SPACE, Load

PLUGIN = """
from pydantic import BaseModel

class Mine:
    class Config(BaseModel, extra="forbid"):
        steps: int = 3

class Rule: pass

SAMPLERS = {"mine": Mine, "cma": "optuna.samplers:CmaEsSampler"}
STOP_RULES = {"median": Rule}
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(plugins.VARIABLE, "named_plugin")
    monkeypatch.delitem(sys.modules, "named_plugin", raising=False)
    plugins.modules.cache_clear()


@pytest.mark.usefixtures("plugin")
def test_names_of_plug_ins() -> None:
    search = SearchConfig.model_validate({"stop": "median", "sampler": {"name": "mine", "options": {"steps": 5}}})
    assert search.stop == "median"
    assert search.sampler == PluginSamplerConfig(name="mine", options={"steps": 5})
    assert SearchConfig.model_validate(search.model_dump(mode="json")) == search
    assert SearchConfig.model_validate({"sampler": "cma"}).sampler == PluginSamplerConfig(name="cma")


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"stop": "medina"}, "there is no stop rule 'medina'. Did you mean 'median'?"),
        ({"sampler": "cmae"}, "there is no sampler 'cmae'. Did you mean 'cma'?"),
        ({"sampler": {"name": "mine", "options": {"stesp": 1}}}, "Extra inputs are not permitted"),
        ({"sampler": {"name": "mine", "steps": 1}}, "unknown key"),
    ],
)
def test_errors(section: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        SearchConfig.model_validate(section)
    assert message in str(error.value)


def test_without_the_plug_in() -> None:
    plugins.modules.cache_clear()
    for section in ({"stop": "median"}, {"sampler": {"name": "mine"}}):
        with pytest.raises(ValidationError, match=r"there is no (stop rule|sampler)"):
            SearchConfig.model_validate(section)


@pytest.mark.usefixtures("plugin")
def test_the_error_is_at_the_option(load: Load) -> None:
    text = SPACE.replace("search: {trials: 12,", "search: {sampler: {name: mine, options: {steps: few}}, trials: 12,")
    with pytest.raises(UserError, match=r"space\.yaml:\d+: search\.sampler\.options\.steps: .*integer"):
        load(text)


@pytest.mark.usefixtures("plugin")
def test_the_schema_has_the_names() -> None:
    schema = json_schema()["$defs"]
    assert schema["SearchConfig"]["properties"]["stop"]["enum"] == ["forecast", "pareto", "miou", "none", "median"]
    assert schema["PluginSamplerConfig"]["properties"]["name"]["enum"] == ["mine", "cma"]
