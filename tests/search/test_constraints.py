"""Metrics that can be bounded, and errors for those that no trial reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.errors import UserError
from kdsearch.search.callbacks import StudyCallback
from kdsearch.search.constraints import check_reported
from kdsearch.search.controller import StudyController
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord
from tests.search.conftest import SPACE, cost_of


def bounded(tmp_path: Path, name: str) -> SearchSpace:
    (tmp_path / "bounded.yaml").write_text(SPACE.replace('gflops: "<= 5"', f'{name}: "<= 5"'))
    return load_space(tmp_path / "bounded.yaml")


@pytest.mark.parametrize("name", ["val/miou", "loss/kd", "grad_ratio/kd", "gflops"])
def test_what_is_reported_or_may_be(name: str, tmp_path: Path) -> None:
    check_reported(bounded(tmp_path, name), {"val/miou": 0.5})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("time/trian_s", "no trial reports 'time/trian_s'. Did you mean 'time/train_s'"),
        ("val/iou/car", "'val/iou/car' is not reported: the class does not occur in the validation split"),
        ("loss/cwd", "no trial reports 'loss/cwd'"),
    ],
)
def test_what_no_trial_reports_ends_the_study_at_the_first_epoch(name: str, message: str, tmp_path: Path) -> None:
    space = bounded(tmp_path, name)
    storage = StudyStorage.open(None, space, cost_of)
    rungs = RungState((), space.search.objectives, "none", 2)
    controller = StudyController(space, storage, rungs, {"gflops": 10.0, "params_m": 1.0}, None, False, StudyCallback())
    trial = controller.next_trial()
    assert isinstance(trial, TrialRecord)
    with pytest.raises(UserError) as error:
        controller.on_report(trial.id, 1, {"val/miou": 0.5, "time/train_s": 1.0, "time/val_s": 1.0})
    assert message in str(error.value)
