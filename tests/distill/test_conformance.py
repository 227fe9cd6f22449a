import pytest

from kdsearch.distill.registry import registry

from .cases import CASES
from .conformance import Case, TermConformance


class TestConformance(TermConformance):
    @pytest.fixture(params=CASES, ids=str)
    def case(self, request: pytest.FixtureRequest) -> Case:
        return request.param


def test_every_term_has_a_case() -> None:
    assert {case.term for case in CASES} == set(registry())


def test_every_mode_of_clfd_has_a_case() -> None:
    from typing import get_args

    from kdsearch.config.terms.clfd import Mode

    assert {case.config.get("mode", "proto") for case in CASES if case.term == "clfd"} == set(get_args(Mode))
