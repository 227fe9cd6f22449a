from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdsearch.search.rungs import Rungs

OBJECTIVES = {"miou": "max", "gflops": "min"}


def point(miou: float, gflops: float) -> dict[str, float]:
    return {"miou": miou, "gflops": gflops}


def test_goes_on_between_rungs_and_where_nothing_stops() -> None:
    rungs = Rungs((3,), OBJECTIVES, "pareto", 2)
    assert rungs.keep("a", 1, point(0.9, 1))
    assert rungs.reached[3] == {}
    none = Rungs((3,), OBJECTIVES, "none", 2)
    assert none.keep("a", 3, point(0.9, 1))
    assert none.keep("b", 3, point(0.0, 9))


def test_the_first_at_a_rung_goes_on_and_a_dominated_one_does_not() -> None:
    rungs = Rungs((3,), OBJECTIVES, "pareto", 2)
    assert rungs.keep("good", 3, point(0.5, 1.0))
    assert not rungs.keep("worse in both", 3, point(0.4, 2.0))


def test_miou_alone_stops_the_small_student_that_pareto_keeps() -> None:
    for stop, kept in (("miou", False), ("pareto", True)):
        rungs = Rungs((3,), OBJECTIVES, stop, 2)
        rungs.keep("large", 3, point(0.6, 8.0))
        rungs.keep("large, worse", 3, point(0.5, 9.0))
        rungs.keep("large, worst", 3, point(0.4, 9.5))
        assert rungs.keep("small", 3, point(0.3, 0.5)) is kept


@pytest.mark.parametrize("reduction", [2, 3, 4])
def test_a_share_of_those_seen_goes_on_at_least(reduction: int) -> None:
    rungs = Rungs((1,), OBJECTIVES, "miou", reduction)
    # The best come last, so each beats all before it.
    assert all(rungs.keep(str(i), 1, point(i / 100, 1.0)) for i in range(20))
    # The best come first: later ones are never in the best share.
    rungs = Rungs((1,), OBJECTIVES, "miou", reduction)
    kept = [rungs.keep(str(i), 1, point(1 - i / 100, 1.0)) for i in range(20)]
    assert kept[0]
    assert not any(kept[1:])


def test_state_survives_the_driver(tmp_path: Path) -> None:
    path = tmp_path / "rungs.json"
    Rungs((3,), OBJECTIVES, "pareto", 2, path).keep("good", 3, point(0.5, 1.0))
    assert json.loads(path.read_text())["rungs"]["3"] == {"good": point(0.5, 1.0)}
    again = Rungs((3,), OBJECTIVES, "pareto", 2, path)
    assert not again.keep("worse", 3, point(0.4, 2.0))


def test_a_trial_that_comes_again_is_judged_by_its_new_values() -> None:
    rungs = Rungs((3,), OBJECTIVES, "miou", 2)
    rungs.keep("a", 3, point(0.5, 1.0))
    assert not rungs.keep("b", 3, point(0.4, 1.0))
    assert rungs.keep("b", 3, point(0.6, 1.0))
    assert len(rungs.reached[3]) == 2
