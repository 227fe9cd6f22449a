"""The trials that a plan measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.errors import UserError
from kdsearch.planning.representatives import draw, representatives
from tests.planning.cases import SPACE, gflops


def test_what_is_measured_holds_every_student_and_every_set_of_terms(space: SearchSpace) -> None:
    chosen = representatives(draw(space, gflops))
    names = [name for name, _, _ in chosen]
    assert names[:2] == ["default", "dearest"]
    assert {cost for name, _, cost in chosen if name in ("default", "cheapest")} == {1.0}
    assert next(cost for name, _, cost in chosen if name == "dearest") == 3.0
    assert {frozenset(sample.trial.distill) for _, sample, _ in chosen} == {frozenset({"kd"}), frozenset({"at"}),
                                                                           frozenset()}  # fmt: skip
    assert {sample.trial.student.encoder for _, sample, _ in chosen} == {"tu-mobilenetv3_small_050", "mobilenet_v2",
                                                                         "resnet18"}  # fmt: skip


def test_bounds_on_what_trials_report_are_left_for_the_study(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    bound = load_space(tmp_path / "tiny.yaml", overrides=['search.constraints={"val/iou/person": ">= 0.5"}'])
    assert len(draw(bound, gflops)) == 201


def test_a_space_none_of_whose_trials_can_be_built_is_refused_with_the_reason(space: SearchSpace) -> None:
    def refuse(trial: object) -> dict[str, float]:
        raise UserError("it needs a thermal channel")

    with pytest.raises(UserError, match="can be trained: it needs a thermal channel"):
        draw(space, refuse)
