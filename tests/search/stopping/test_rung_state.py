from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdsearch.search.stopping.rung_state import RungState

OBJECTIVES = {"miou": "max", "gflops": "min"}


def point(miou: float, gflops: float) -> dict[str, float]:
    return {"miou": miou, "gflops": gflops}


def test_goes_on_between_rungs_and_where_nothing_stops() -> None:
    rungs = RungState((3,), OBJECTIVES, "pareto", 2)
    assert rungs.keep("a", 1, point(0.9, 1))
    assert rungs.reached[3] == {}
    none = RungState((3,), OBJECTIVES, "none", 2)
    assert none.keep("a", 3, point(0.9, 1))
    assert none.keep("b", 3, point(0.0, 9))


def test_the_first_at_a_rung_goes_on_and_a_dominated_one_does_not() -> None:
    rungs = RungState((3,), OBJECTIVES, "pareto", 2)
    assert rungs.keep("good", 3, point(0.5, 1.0))
    assert not rungs.keep("worse in both", 3, point(0.4, 2.0))


def test_miou_alone_stops_the_small_student_that_pareto_keeps() -> None:
    for stop, kept in (("miou", False), ("pareto", True)):
        rungs = RungState((3,), OBJECTIVES, stop, 2)
        rungs.keep("large", 3, point(0.6, 8.0))
        rungs.keep("large, worse", 3, point(0.5, 9.0))
        rungs.keep("large, worst", 3, point(0.4, 9.5))
        assert rungs.keep("small", 3, point(0.3, 0.5)) is kept


@pytest.mark.parametrize("reduction", [2, 3, 4])
def test_a_share_of_those_seen_goes_on_at_least(reduction: int) -> None:
    rungs = RungState((1,), OBJECTIVES, "miou", reduction)
    # The best come last, so each beats all before it.
    assert all(rungs.keep(str(i), 1, point(i / 100, 1.0)) for i in range(20))
    # The best come first: later ones are never in the best share.
    rungs = RungState((1,), OBJECTIVES, "miou", reduction)
    kept = [rungs.keep(str(i), 1, point(1 - i / 100, 1.0)) for i in range(20)]
    assert kept[0]
    assert not any(kept[1:])


def test_state_survives_the_driver(tmp_path: Path) -> None:
    path = tmp_path / "rungs.jsonl"
    RungState((3,), OBJECTIVES, "pareto", 2, path).keep("good", 3, point(0.5, 1.0))
    (line,) = path.read_text().splitlines()
    assert json.loads(line) == {
        "trial": "good", "epoch": 3, "values": point(0.5, 1.0), "kept": True, "audited": False
    }  # fmt: skip
    with path.open("a") as file:
        file.write('{"trial": "torn", "ep')
    again = RungState((3,), OBJECTIVES, "pareto", 2, path)
    assert again.reached == {3: {"good": point(0.5, 1.0)}}
    assert path.read_text() == line + "\n"
    assert not again.keep("worse", 3, point(0.4, 2.0))


def test_a_trial_that_comes_again_is_judged_by_its_new_values() -> None:
    rungs = RungState((3,), OBJECTIVES, "miou", 2)
    rungs.keep("a", 3, point(0.5, 1.0))
    assert not rungs.keep("b", 3, point(0.4, 1.0))
    assert rungs.keep("b", 3, point(0.6, 1.0))
    assert len(rungs.reached[3]) == 2


@pytest.mark.parametrize("stop", ["pareto", "forecast"])
@given(points=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1), cut=st.integers(0, 40))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_driver_that_takes_over_decides_the_same(
    stop: Literal["pareto", "forecast"], points: list[tuple[int, int]], cut: int, tmp_path: Path
) -> None:
    """The audit included: the same trials are stopped, run on, and count as wrongly stopped."""
    values = {f"t{i:04d}": point(miou / 10, float(gflops)) for i, (miou, gflops) in enumerate(points)}
    path = tmp_path / "rungs.jsonl"
    path.unlink(missing_ok=True)

    def decide(rungs: RungState, names: list[str]) -> list[bool]:
        kept = []
        for name in names:
            kept.append(rungs.keep(name, 2, values[name]) and rungs.keep(name, 4, values[name]))
            if kept[-1]:
                rungs.complete(name, values[name])
        return kept

    names = list(values)
    whole = RungState((2, 4), OBJECTIVES, stop, 3, audit=0.3, seed=5)
    expected = decide(whole, names)
    first = decide(RungState((2, 4), OBJECTIVES, stop, 3, path, audit=0.3, seed=5), names[:cut])
    second = RungState((2, 4), OBJECTIVES, stop, 3, path, audit=0.3, seed=5)
    assert first + decide(second, names[cut:]) == expected
    assert second.audited == whole.audited
    assert second.audit_report() == whole.audit_report()


@pytest.mark.parametrize("stop", ["pareto", "forecast"])
@given(points=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=30))
@settings(deadline=None, max_examples=30)
def test_an_objective_counts_alike_to_be_raised_and_to_be_lowered(
    stop: Literal["pareto", "forecast"], points: list[tuple[int, int]]
) -> None:
    lowered = RungState((2,), {"miou": "max", "gflops": "min"}, stop, 3)
    raised = RungState((2,), {"miou": "max", "gflops": "max"}, stop, 3)
    for i, (miou, gflops) in enumerate(points):
        kept = lowered.keep(str(i), 2, point(miou / 10, gflops))
        assert raised.keep(str(i), 2, point(miou / 10, -gflops)) == kept
        if kept:
            lowered.complete(str(i), point(miou / 10, gflops))
            raised.complete(str(i), point(miou / 10, -gflops))


def test_audited_trials_are_the_stated_share_of_those_that_would_be_stopped() -> None:
    rungs = RungState((2, 4), OBJECTIVES, "pareto", 2, audit=0.1)
    rungs.keep("best", 2, point(0.9, 1.0))
    going = [i for i in range(2000) if rungs.keep(f"t{i:04d}", 2, point(0.5 - i / 10000, 2.0 + i))]
    assert 140 <= len(going) <= 260
    assert set(rungs.audited) == {f"t{i:04d}" for i in going}
    # None of them is stopped later, and none counts among those that others are compared with there.
    assert all(rungs.keep(f"t{i:04d}", 4, point(0.95, 0.5)) for i in going[:3])
    assert rungs.keep("other", 4, point(0.1, 9.0))


def test_stopping_was_wrong_where_an_audited_trial_ends_on_the_frontier() -> None:
    rungs = RungState((2,), OBJECTIVES, "pareto", 2, audit=1.0)
    assert rungs.audit_report() is None
    for name, early, end in (("a", 0.5, 0.6), ("b", 0.4, 0.7), ("c", 0.3, 0.5)):
        assert rungs.keep(name, 2, point(early, 2.0))
        rungs.complete(name, point(end, 2.0))
    assert rungs.audit_report() == {"audited": 2, "complete": 2, "wrong": 1, "trials": ["b"]}


def test_a_forecast_stops_only_what_even_a_fast_gain_would_leave_dominated() -> None:
    rungs = RungState((2,), OBJECTIVES, "forecast", 2)
    for i in range(8):
        # Complete trials gain 0.10, 0.11, ... 0.17 after the rung; the quantile 0.95 of that is 0.1665.
        assert rungs.keep(f"c{i}", 2, point(0.3 + i / 1000, 5.0))
        rungs.complete(f"c{i}", point(0.4 + i / 1000 + i / 100, 5.0))
    assert not rungs.keep("hopeless", 2, point(0.31, 5.0))  # 0.4765 at best, and 0.477 stands
    assert rungs.keep("hopeful", 2, point(0.311, 5.0))
    assert rungs.keep("cheaper", 2, point(0.1, 4.9))


def test_before_there_is_anything_to_forecast_from_the_best_share_of_a_rung_goes_on() -> None:
    forecast, pareto = (RungState((2,), OBJECTIVES, stop, 3) for stop in ("forecast", "pareto"))  # type: ignore[arg-type]
    kept = []
    for i in range(60):
        at_rung = point((37 * i % 60) / 100, 1.0 + i % 4)
        kept.append(forecast.keep(f"t{i}", 2, at_rung))
        assert kept[-1] == pareto.keep(f"t{i}", 2, at_rung)
        if sum(kept) < 8 and kept[-1]:
            forecast.complete(f"t{i}", at_rung)
    assert 10 < sum(kept) < 40


@pytest.mark.parametrize("stop", ["pareto", "forecast"])
def test_a_decision_stands_whatever_is_known_by_then(stop: Literal["pareto", "forecast"], tmp_path: Path) -> None:
    """A driver is killed after its decision; what is trained meanwhile would have the next one decide otherwise."""
    path = tmp_path / "rungs.jsonl"
    first = RungState((2,), OBJECTIVES, stop, 2, path)
    assert first.keep("kept", 2, point(0.3, 5.0))
    assert not first.keep("stopped", 2, point(0.2, 5.0))
    for i in range(9):
        first.keep(f"c{i}", 2, point(0.4 + i / 100, 5.0))
        first.complete(f"c{i}", point(0.5 + i / 100, 5.0))
    lines = path.read_text()
    second = RungState((2,), OBJECTIVES, stop, 2, path)
    assert second.keep("kept", 2, point(0.3, 5.0))
    assert not second.keep("stopped", 2, point(0.2, 5.0))
    assert path.read_text() == lines
    assert not second.keep("kept", 2, point(0.29, 5.0)), (
        "with other values, from an earlier checkpoint, it is a new one"
    )
