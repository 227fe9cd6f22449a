from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import Requirements
from kdsearch.distill.terms.dsrd import DSRD
from kdsearch.distill.terms.kd import KD
from kdsearch.errors import UserError
from kdsearch.models.seg_output import SegOutput

INFO = DatasetInfo("toy", tuple("abc"), ((0, 0, 0),) * 3, 3, (0.5,) * 3, (0.5,) * 3)
PLAIN = {"logits": (3, 4, 4), "c1": (8, 4, 4)}
DETAIL = PLAIN | {"bound1": (2, 8, 8), "bin1": (2, 8, 8), "binary": (2, 8, 8)}


def test_auto_uses_heads_only_where_both_networks_have_them() -> None:
    assert DSRD(DSRD.Config(), DETAIL, DETAIL, INFO).requirements == Requirements(("bin1", "bound1"), detail_heads=True)
    assert DSRD(DSRD.Config(), PLAIN, DETAIL, INFO).requirements == Requirements()
    assert DSRD(DSRD.Config(detail_source="derived"), DETAIL, DETAIL, INFO).requirements == Requirements()


@pytest.mark.parametrize(
    ("config", "shapes", "message"),
    [
        ({"detail_source": "heads"}, PLAIN, "derived"),
        ({"foreground": (1,)}, DETAIL, "derived"),
        ({"foreground": (1, 3)}, PLAIN, "0 to 2"),
        ({"foreground": (1, 1)}, PLAIN, "0 to 2"),
        ({"foreground": ()}, PLAIN, "0 to 2"),
        ({}, {"logits": (4, 4, 4)}, "4 classes and toy has 3"),
    ],
)
def test_what_these_networks_cannot_feed_is_an_error(config: dict[str, Any], shapes: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DSRD(DSRD.Config(**config), shapes, shapes, INFO)


@pytest.mark.parametrize(
    "config", [{"w_det": 0, "w_sem": 0}, {"detail_source": "heads", "foreground": (1,)}, {"temperature": 0}]
)
def test_settings_without_effect_are_errors(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DSRD.Config(**config)


def test_both_forms_have_the_same_gradient_and_differ_by_the_teachers_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    student.requires_grad_()
    target = torch.zeros(2, 4, 4, dtype=torch.long)
    values = {}
    for form in ("kl", "soft_ce"):
        term = DSRD(DSRD.Config(form=form, w_det=0), PLAIN, PLAIN, INFO)
        values[form] = term(SegOutput(student), SegOutput(teacher), target)
    grads = [torch.autograd.grad(value, student)[0] for value in values.values()]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-14)
    prob = teacher.softmax(1)
    entropy = -(prob * prob.log()).sum(1).mean()
    torch.testing.assert_close(values["soft_ce"] - values["kl"], entropy)


def test_kd_names_the_network_with_the_wrong_classes() -> None:
    with pytest.raises(UserError, match="The teacher has 5 classes"):
        KD(KD.Config(), PLAIN, {"logits": (5, 4, 4)}, INFO)
