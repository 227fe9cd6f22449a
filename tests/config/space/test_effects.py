"""Settings that would change nothing are refused before a study starts; studies that have them stay readable."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kdsearch.config.data import Augment
from kdsearch.config.space.effects import check_effects
from kdsearch.config.space.search_space import space_from_text
from kdsearch.errors import UserError

BASE: dict[str, Any] = {
    "name": "toy",
    "data": {"name": "scenes", "size": [64, 96]},
    "teacher": {"arch": "fpn", "encoder": "resnet18", "train": {"epochs": 2}},
    "student": {"arch": "fpn", "encoder": "resnet18"},
    "distill": {"soft": {"weight": {"log": [0.1, 10], "default": 1}}},
    "train": {"epochs": 9},
    "search": {"trials": 4, "rungs": [3]},
}


def changed(**sections: dict[str, Any]) -> str:
    return yaml.safe_dump({name: {**value, **sections.get(name, {})} if isinstance(value, dict) else value
                           for name, value in (BASE | {k: {} for k in sections if k not in BASE}).items()})  # fmt: skip


REFUSED = [
    ({"search": {"rungs": [3, 9, 12]}}, r"search.rungs: 9 has no effect: a trial ends after 9 .* search.rungs=\[3\]"),
    ({"train": {"epochs": {"choice": [2, 3]}}}, "search.rungs: 3 has no effect: a trial ends after 3 epochs"),
    ({"search": {"stop": "none", "reduction": 2}}, "search.reduction: has no effect with stop none.*reduction=3"),
    ({"search": {"stop": "none", "audit": 0.5}}, "search.audit: has no effect with stop none"),
    ({"search": {"stop": "pareto", "rungs": [], "reduction": 4}}, "search.reduction: has no effect without rungs"),
    ({"confirm": {"seeds": 0, "cache": True}}, "confirm.cache: has no effect with seeds 0"),
    ({"distill": {"soft": {"warmup_epochs": 9}}}, "distill.soft.warmup_epochs: 9 leaves no epoch .* set it below 9"),
    ({"distill": {"soft": {"warmup_epochs": {"int": [0, 30]}}}}, "distill.soft.warmup_epochs: 30 leaves no epoch"),
    ({"train": {"epochs": 9, "edge_width": 3, "detail_weight": 0.0}}, "train.edge_width: has no effect"),
]


@pytest.mark.parametrize(("sections", "message"), REFUSED, ids=str)
def test_a_setting_without_an_effect_is_refused(sections: dict[str, Any], message: str) -> None:
    space = space_from_text(changed(**sections), "toy.yaml")  # it can be read
    with pytest.raises(UserError, match=message):
        space.check_effects()


ACCEPTED: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({}, ()),
    ({"train": {"epochs": {"choice": [2, 9]}}}, ()),  # some trials reach the rung
    ({"search": {"stop": "none"}}, ()),
    (
        {"search": {"stop": "pareto", "reduction": 2, "audit": 0.5}},
        ("search.stop=none",),
    ),  # with the rule go its settings
    ({"search": {"stop": "pareto", "reduction": 2}}, ("search.rungs=[]",)),
    ({"distill": {"soft": {"warmup_epochs": 8}}}, ()),
]


@pytest.mark.parametrize(("sections", "overrides"), ACCEPTED, ids=str)
def test_settings_with_an_effect_are_accepted(sections: dict[str, Any], overrides: tuple[str, ...]) -> None:
    space_from_text(changed(**sections), "toy.yaml", overrides=overrides).check_effects()


def test_a_setting_on_the_command_line_needs_an_effect() -> None:
    space = space_from_text(changed(), "toy.yaml", overrides=("search.stop=none", "search.reduction=2"))
    with pytest.raises(UserError, match=r"set search.reduction=2: search.reduction: has no effect"):
        space.check_effects()


def test_one_trial_is_checked_alike() -> None:
    space = space_from_text(changed(distill={"soft": {"warmup_epochs": 9}}), "toy.yaml")
    with pytest.raises(UserError, match="warmup_epochs: 9 leaves no epoch"):
        check_effects(space.default().trial)


def test_a_zoom_goes_from_small_to_large() -> None:
    with pytest.raises(ValueError, match=r"should go from the smaller to the larger factor: \[0.5, 2\]"):
        Augment(scale=(2.0, 0.5))
    assert Augment(scale=(1.0, 1.0)).scale == (1.0, 1.0)
