"""Conformance suite of stop rules: the contract of `kdsearch.search.stopping.rules` as tests."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from kdsearch.search.stopping.rules import Point, StopRule

__all__ = ["StopRuleConformance"]

OBJECTIVES = {"miou": "max", "gflops": "min"}
RUNGS = (2, 4)
REDUCTIONS = (2, 3, 4)
TRIALS = 40


class StopRuleConformance:
    """Inherit, with a fixture `rule` that returns the subclass of `StopRule`."""

    @pytest.fixture
    def rule(self) -> type[StopRule]:
        raise NotImplementedError

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_a_trial_alone_at_a_rung_goes_on(self, rule: type[StopRule], reduction: int) -> None:
        assert rule(OBJECTIVES, reduction).keep({"a": {"miou": 0.01, "gflops": 99.0}}, "a", 2) is True

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_the_best_goes_on(self, rule: type[StopRule], reduction: int) -> None:
        """A trial that dominates all others at its rung goes on while no trial is complete."""
        made = rule(OBJECTIVES, reduction)
        rung: dict[str, Point] = {}
        for number in range(TRIALS):
            rung[f"t{number}"] = {"miou": 0.1 + number / 100, "gflops": 10 - number / 10}
            assert made.keep(rung, f"t{number}", 2)

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    @pytest.mark.parametrize("seed", range(3))
    def test_decisions_follow_from_arguments_and_complete_trials(
        self, rule: type[StopRule], reduction: int, seed: int
    ) -> None:
        """A second rule that receives the complete trials only, as in a resumed study, decides the same."""
        first, second = rule(OBJECTIVES, reduction), rule(OBJECTIVES, reduction)
        for trial_id, points in random_trials(seed):
            reached: dict[int, Point] = {}
            for epoch, rung in points.items():
                reached[epoch] = rung[trial_id]
                kept = first.keep(rung, trial_id, epoch)
                resumed = copy.deepcopy(second)
                assert kept == resumed.keep(rung, trial_id, epoch)
                if not kept:
                    break
            else:
                final = reached[RUNGS[-1]] | {"miou": reached[RUNGS[-1]]["miou"] + 0.05}
                first.on_complete(final, reached)
                second.on_complete(final, reached)

    def test_arguments_are_left_unchanged(self, rule: type[StopRule]) -> None:
        made = rule(OBJECTIVES, 2)
        for trial_id, points in random_trials(0):
            before = copy.deepcopy(points)
            for epoch, rung in points.items():
                made.keep(rung, trial_id, epoch)
            reached = {epoch: rung[trial_id] for epoch, rung in points.items()}
            made.on_complete(reached[RUNGS[-1]], reached)
            assert points == before

    def test_an_objective_may_have_either_direction(self, rule: type[StopRule]) -> None:
        """An objective to maximise counts as its negative does to minimise."""
        lowered, raised = rule(OBJECTIVES, 3), rule({"miou": "max", "gflops": "max"}, 3)
        for trial_id, points in random_trials(1):
            for epoch, rung in points.items():
                mirrored = {name: {**point, "gflops": -point["gflops"]} for name, point in rung.items()}
                assert lowered.keep(rung, trial_id, epoch) == raised.keep(mirrored, trial_id, epoch)

    @pytest.mark.parametrize("names", [("miou",), ("miou", "params_m"), ("miou", "gflops", "latency_ms")])
    def test_any_objectives(self, rule: type[StopRule], names: tuple[str, ...]) -> None:
        made = rule({name: "max" if name == "miou" else "min" for name in names}, 3)
        rung: dict[str, Point] = {}
        for number in range(TRIALS):
            rung[f"t{number}"] = {name: float((7 * number + len(name)) % 11 + 1) for name in names}
            assert made.keep(rung, f"t{number}", 2) in (True, False)

    def test_nothing_is_written(self, rule: type[StopRule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        made = rule(OBJECTIVES, 2)
        for trial_id, points in random_trials(2):
            made.keep(points[2], trial_id, 2)
        assert not list(tmp_path.iterdir())


def random_trials(seed: int) -> Iterator[tuple[str, dict[int, Mapping[str, Point]]]]:
    """Trials one after the other: the id, and at each rung the points of all trials so far."""
    rng = np.random.default_rng(seed)
    seen: dict[int, dict[str, Point]] = {epoch: {} for epoch in RUNGS}
    for number in range(TRIALS):
        trial_id = f"t{number:04d}"
        miou, gflops = float(rng.uniform(0.1, 0.5)), float(rng.integers(1, 9))
        for epoch in RUNGS:
            seen[epoch][trial_id] = {"miou": miou + 0.02 * epoch, "gflops": gflops}
        yield trial_id, {epoch: dict(rung) for epoch, rung in seen.items()}
