"""Bounds on reported metrics: the sampler and the frontier."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.config.space.search_space import load_space
from kdsearch.search.storage.study_storage import StudyStorage
from tests.search.conftest import SPACE, cost_of


def test_a_bound_on_what_trials_report_keeps_them_off_the_frontier(tmp_path: Path) -> None:
    text = SPACE.replace('gflops: "<= 5"', 'gflops: "<= 5", val/iou/person: ">= 0.5"')
    (tmp_path / "bound.yaml").write_text(text)
    space = load_space(tmp_path / "bound.yaml")
    storage = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
    reported = [
        {"val/miou": 0.9, "val/iou/person": 0.4}, {"val/miou": 0.5, "val/iou/person": 0.6}, {"val/miou": 0.95}
    ]  # fmt: skip
    trials = []
    for metrics in reported:
        trial = storage.ask()
        assert trial is not None
        trial.epoch, trial.metrics = 4, metrics
        storage.tell(trial, "COMPLETE")
        trials.append(trial)
    assert [trial.feasible for trial in trials] == [False, True, False]
    assert [trial.state for trial in trials] == ["COMPLETE"] * 3
    assert trials[0].reason == "val/iou/person 0.4 is not >= 0.5"
    assert "was not reported" in trials[2].reason
    assert storage.frontier() == [trials[1]]
    told = [t.constraints["val/iou/person"] for t in storage._search.trials if t.state.is_finished() and t.values]
    assert told == pytest.approx([0.1, -0.1, 1.0])
    storage.close()
    again = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
    assert [member.id for member in again.frontier()] == [trials[1].id]
    again.close()
