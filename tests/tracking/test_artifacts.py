from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from kdsearch.config.space.search_space import load_space
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.confirm import repeats
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.listing import list_runs
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord
from kdsearch.tracking.artifacts import ArtifactsCallback


def complete(record: StudyStorage, trial: TrialRecord | None, miou: float, **iou: float) -> TrialRecord:
    assert trial is not None
    trial.epoch = trial.config.train.epochs
    trial.metrics = {"val/miou": miou} | {f"val/iou/{name}": value for name, value in iou.items()}
    record.tell(trial, "COMPLETE")
    return trial


CONFIRMED = {
    "seeds": 2, "miou_mean": 0.45, "miou_std": 0.05 * 2**0.5, "control_miou_mean": 0.375, "gain": 0.075,
    "gain_std": 0.025 * 2**0.5, "gain_low": 0.075 - 12.7062 * 0.025, "gain_high": 0.075 + 12.7062 * 0.025,
}  # fmt: skip


def test_the_frontier_has_the_columns_of_repeats_before_and_after_them(run: RunFolder, record: StudyStorage) -> None:
    tables = ArtifactsCallback(record.space, run, record, dict, RungState((), {}, "none", 3))
    tables.on_frontier([], 0.0)
    empty = pd.read_parquet(run.path / "frontier.parquet")
    assert len(empty) == 0
    members = [complete(record, record.ask(), miou) for miou in (0.6, 0.5)]
    tables.on_frontier(members, 0.1)
    tables.write("running")
    before = pd.read_parquet(run.path / "frontier.parquet")
    assert {*CONFIRMED, "p_frontier"} <= set(before.columns) & set(empty.columns)
    assert list(before.seeds) == [0, 0]
    assert before[[name for name in CONFIRMED if name != "seeds"] + ["p_frontier"]].isna().all(axis=None)

    results = [(0.5, 0.4), (0.4, 0.35)]
    for (repeat, control), (first, second) in zip(
        repeats(members[0].config, record.space.confirm), results, strict=True
    ):
        complete(record, record.add("confirm", repeat, {"of": members[0].id}), first, car=first)
        complete(record, record.add("control", control, {"of": members[0].id}), second, car=second)
    tables.write("done")
    after = pd.read_parquet(run.path / "frontier.parquet")
    assert dict(after.loc[0, list(CONFIRMED)]) == pytest.approx(CONFIRMED, rel=1e-5)
    assert after.loc[1, "seeds"] == 0
    assert after.drop(columns=[*CONFIRMED, "p_frontier"]).equals(before.drop(columns=[*CONFIRMED, "p_frontier"]))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    (listed,) = list_runs(str(run.path.parent))
    assert (listed.status, listed.space) == ("running", "clfd"), "the journal is open"
    assert (listed.trials, listed.asked) == (2, record.space.search.trials), "repeats and controls do not count"
    assert (listed.frontier, listed.best_miou, listed.hypervolume) == (2, 0.6, 0.1)
    first, second = json.loads(run.summary.read_text(), parse_constant=refuse)["frontier"]
    assert {name: first[name] for name in CONFIRMED} == pytest.approx(CONFIRMED, rel=1e-5)
    assert first["gain_of_class"] == pytest.approx({"car": 0.075})
    assert (second["seeds"], second["miou_mean"], second["p_frontier"], second["gain_of_class"]) == (0, None, None, {})


def test_the_longer_writing_takes_the_less_often_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.at(str(tmp_path), "study")
    run.create()
    record = StudyStorage.open(
        None, load_space("clfd", profile="demo"), lambda config: {"gflops": 0.4, "params_m": 2.0}
    )
    tables = ArtifactsCallback(record.space, run, record, dict, RungState((), {}, "none", 3))
    now, writes = [0.0], [0]
    monkeypatch.setattr("kdsearch.tracking.artifacts.time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow(summary: object, path: Path) -> None:
        now[0] += 3.0
        writes[0] += 1

    monkeypatch.setattr("kdsearch.tracking.artifacts.StudySummary.write", slow)
    for _ in range(1000):
        now[0] += 1.0
        tables.on_frontier([], 0.0)
    assert 3 * writes[0] <= 0.03 * now[0]
    assert writes[0] > 3
    tables.write("done")  # the end is always written
    assert now[0] - 1000 == 3 * writes[0]
