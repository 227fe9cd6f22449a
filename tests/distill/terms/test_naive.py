"""Every term against its naive form of `benchmarks/naive_terms.py`: values and gradients, in fp64 on tiny maps."""

import pytest

from benchmarks.naive_terms import ROWS, Row
from benchmarks.term_scenes import TINY, Scene, difference
from kdsearch.distill.registry import registry


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_the_naive_form_agrees(row: Row) -> None:
    assert difference(Scene(row, TINY)) < 1e-9


def test_every_term_is_measured() -> None:
    assert {row.term for row in ROWS} == set(registry())
