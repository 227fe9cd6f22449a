"""The built-in stop rules by the suite that plug-ins inherit, and rules of plug-ins by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kdsearch import plugins
from kdsearch.errors import UserError
from kdsearch.search.stopping.rules import STOP_RULES, NeverStop, StopRule, make_stop_rule
from kdsearch.testing.stop_rules import StopRuleConformance


class TestBuiltIn(StopRuleConformance):
    @pytest.fixture(params=list(STOP_RULES))
    def rule(self, request: pytest.FixtureRequest) -> type[StopRule]:
        return STOP_RULES[request.param]


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(UserError, match=r"there is no stop rule 'forcast'\. Did you mean 'forecast'"):
        make_stop_rule("forcast", {"miou": "max"}, 2)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{'mine': Mine}", ""),
        ("{'mine': 7}", "is 7, no StopRule class"),
        ("{'none': Mine}", "there is a 'none' already"),
    ],
)
def test_rules_of_plugins(entry: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"from kdsearch.search.stopping.rules import NeverStop\nclass Mine(NeverStop): pass\nSTOP_RULES = {entry}\n"
    (tmp_path / "plugin_rules.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(plugins.VARIABLE, "plugin_rules")
    monkeypatch.delitem(sys.modules, "plugin_rules", raising=False)
    plugins.modules.cache_clear()
    try:
        if message:
            with pytest.raises(UserError, match=message):
                make_stop_rule("mine", {"miou": "max"}, 2)
        else:
            assert isinstance(make_stop_rule("mine", {"miou": "max"}, 2), NeverStop)
    finally:
        plugins.modules.cache_clear()
