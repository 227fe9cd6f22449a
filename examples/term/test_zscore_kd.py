"""Tests of the term: the conformance suite of all terms, and the formula in plain Python.

    python -m pytest examples/term

from the root of the repository.
"""

from __future__ import annotations

import math

import pytest
import torch

from examples.term.zscore_kd import ZScoreKD
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.testing.terms import TermCase, TermConformance

CASES = [TermCase(ZScoreKD, zero_at_equality=True), TermCase(ZScoreKD, {"temperature": 1.0}, zero_at_equality=True)]


class TestConformance(TermConformance):
    @pytest.fixture(params=CASES, ids=str)
    def case(self, request: pytest.FixtureRequest) -> TermCase:
        return request.param


def test_is_the_published_formula() -> None:
    case = CASES[0]
    student, teacher, target = case.output("student", 0), case.output("teacher", 1), case.labels()

    def probabilities(logits: list[float]) -> list[float]:
        mean = sum(logits) / len(logits)
        std = math.sqrt(sum((x - mean) ** 2 for x in logits) / len(logits))
        powers = [math.exp((x - mean) / std / 2) for x in logits]
        return [power / sum(powers) for power in powers]

    divergences = []
    for image, label_hw in enumerate(target.tolist()):
        for y, row in enumerate(label_hw):
            for x, label in enumerate(row):
                if label != IGNORE_INDEX:
                    p_t = probabilities(teacher.logits[image, :, y, x].tolist())
                    p_s = probabilities(student.logits[image, :, y, x].tolist())
                    divergences.append(sum(t * math.log(t / s) for t, s in zip(p_t, p_s, strict=True)))
    expected = 4 * sum(divergences) / len(divergences)
    assert case.build()(student, teacher, target).item() == pytest.approx(expected, rel=1e-4)


def test_scale_and_shift_of_the_logits_do_not_matter() -> None:
    case = CASES[0]
    student, target = case.output("student", 0), case.labels()
    teacher = case.output("teacher", 1)
    teacher.logits = 3 * student.logits.detach() + 1
    assert case.build()(student, teacher, target).item() == pytest.approx(0, abs=1e-6)


def test_a_pixel_of_equal_logits_has_a_gradient() -> None:
    case = CASES[0]
    student, teacher = case.output("student", 0), case.output("teacher", 1)
    student.logits = torch.zeros_like(student.logits).requires_grad_()
    case.build()(student, teacher, case.labels()).backward()
    assert student.logits.grad is not None
    assert student.logits.grad.isfinite().all()
