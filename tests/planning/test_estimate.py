"""The cost of a study from a few measured trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.planning import estimate
from kdsearch.planning.estimate import StudySetup, TimeModel
from kdsearch.planning.measure import Measurement
from kdsearch.planning.representatives import draw, representatives
from tests.planning.cases import SPACE, gflops


def setup_of(slots: int = 2, ranks: int = 1, gpus: float = 0.0) -> StudySetup:
    return StudySetup(train=40, val=10, ranks=ranks, slots=slots, gpus=gpus)


def model_of(space: SearchSpace, **changes: float) -> TimeModel:
    """Every student takes 1 s an image and 0.5 s to validate, the teacher 2 s, every term 3 s, the rest 1 s."""
    model = TimeModel(setup_of(**changes))  # type: ignore[arg-type]
    for _, sample, cost in representatives(draw(space, gflops)):
        terms = dict.fromkeys(sample.trial.distill, 3.0)
        whole = 7.0 if terms else 1.0
        model.add(sample.trial, cost, Measurement(4, alone=1.0, val=0.5, whole=whole, teacher=2.0, terms=terms))
    return model


def test_a_trial_is_the_sum_of_its_parts(space: SearchSpace) -> None:
    trial = space.default().trial
    epoch = 40 * (1 + 2 + 3 + 1) + 10 * 0.5
    assert model_of(space).epoch(trial, 1.0) == epoch
    assert model_of(space).epoch(trial, 1.0, cached=True) == epoch - 40 * 2
    assert model_of(space, ranks=2).epoch(trial, 1.0) == epoch / 2
    assert model_of(space, gpus=0.5).epoch(trial, 1.0) == 2 * epoch
    alone = trial.model_copy(update={"teacher": None, "distill": {}})
    assert model_of(space).epoch(alone, 1.0) == 40 + 5
    assert estimate.full_seconds(model_of(space), trial, 1.0) == 9 * epoch + estimate.TURNAROUND_S


def test_a_student_that_was_not_measured_lies_between_those_that_were(space: SearchSpace) -> None:
    model = TimeModel(setup_of())
    for params, cost, seconds in (({}, 1.0, 1.0), ({"student": "pspnet"}, 3.0, 2.0)):
        sample = space.from_params(params)
        model.add(sample.trial, cost, Measurement(4, alone=seconds, val=seconds, whole=seconds))
    other = space.from_params({"student[fpn].encoder": "mobilenet_v2"}).trial
    assert model.image(other, 2.0)["student"] == pytest.approx(1.5)


def test_stages_add_up_and_early_stopping_is_a_range(space: SearchSpace) -> None:
    assert estimate.least_share(space, 9) == pytest.approx((3 + 6 / 2) / 9)
    drawn = [(space.default(), 1.0)]
    model = model_of(space)
    teacher, search, confirm = estimate.stages(space, model, drawn, teacher_s=100.0, confirm=True)
    full = 9 * 285 + estimate.TURNAROUND_S
    assert teacher.slot_s == (100.0, 100.0)
    assert search.slot_s == pytest.approx((6 * full * 6 / 9, 6 * full))
    assert search.wall_s == pytest.approx((3 * full * 6 / 9, 3 * full))
    alone = 9 * 45 + estimate.TURNAROUND_S
    assert confirm.trainings == 2 * 5 * 2
    assert confirm.slot_s[0] == pytest.approx(5 * 2 * (full + alone))


def test_a_forecast_may_stop_all_but_the_first(tmp_path: Path) -> None:
    halving = (3 + 3 / 3 + 3 / 9) / 9  # of nine epochs, at rungs 3 and 6, with reduction 3
    opening = 8 * 3 * 3
    for trials, share in ((6, halving), (100, (opening * halving + (100 - opening) * 3 / 9) / 100)):
        text = SPACE.replace("trials: 6, rungs: [3], stop: pareto, reduction: 2", f"trials: {trials}, rungs: [3, 6]")
        (tmp_path / "tiny.yaml").write_text(text)
        assert estimate.least_share(load_space(tmp_path / "tiny.yaml"), 9) == pytest.approx(share)
