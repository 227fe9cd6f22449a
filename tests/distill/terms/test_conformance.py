from typing import get_args

import pytest

from kdsearch.config.terms.clfd import Mode
from kdsearch.distill.registry import TERMS
from kdsearch.testing.terms import TermCase, TermConformance

from .cases import CASES


class TestConformance(TermConformance):
    @pytest.fixture(params=CASES, ids=str)
    def case(self, request: pytest.FixtureRequest) -> TermCase:
        return request.param


def test_every_term_has_a_case() -> None:
    assert {case.term for case in CASES} == set(TERMS)


def test_every_mode_of_clfd_has_a_case() -> None:
    assert {case.config.get("mode", "proto") for case in CASES if case.term == "clfd"} == set(get_args(Mode))
