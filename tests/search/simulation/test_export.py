"""From a finished study to a table and a tabular benchmark."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from kdsearch.cli.main import main
from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.callbacks import StudyCallback
from kdsearch.search.controller import StudyController
from kdsearch.search.simulation.backend import SimulatorBackend
from kdsearch.search.simulation.tabular_benchmark import BenchmarkTable, TabularBenchmark
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord
from tests.search.conftest import SPACE, cost_of


class Known:
    """mIoU that depends on the learning rate and the student alone."""

    def curve(self, trial: TrialRecord) -> list[float]:
        end = 0.5 + cost_of(trial.config)["gflops"] / 100 - 0.1 * math.log10(trial.config.train.lr / 1e-3) ** 2
        return [end * (1 - 0.5**epoch) for epoch in (1, 2, 3, 4)]

    def seconds(self, trial: TrialRecord) -> float:
        return 2 * trial.cost["gflops"]


def finished(tmp_path: Path, trials: int, stop: str = "none") -> Path:
    """The run folder of a study that was trained to its end under the fake clock."""
    (tmp_path / "toy.yaml").write_text(SPACE.replace("size: [64, 96]", f"size: [64, 96], path: {tmp_path}"))
    space = load_space(tmp_path / "toy.yaml", overrides=[f"search.trials={trials}", f"search.stop={stop}"])
    run = RunFolder.at(str(tmp_path), "toy")
    run.create()
    run.space.write_text(space.to_yaml())
    storage = StudyStorage.open(run.journal, space, cost_of)
    search = space.search
    rungs = RungState(search.rungs, search.objectives, search.stop, search.reduction)
    controller = StudyController(space, storage, rungs, {"gflops": 10.0}, None, False, StudyCallback())
    SimulatorBackend(Known(), slots=2).run(controller, epochs=10_000)
    storage.close()
    return run.path


def a_record(space: SearchSpace, **params: object) -> TrialRecord:
    sample = space.from_params(params)
    return TrialRecord("t", "search", "RUNNING", sample.trial, dict(sample.params), cost_of(sample.trial))


def test_a_table_holds_the_curves_and_no_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = finished(tmp_path, 20), tmp_path / "new" / "folder" / "table.json"
    assert main(["replay", str(run), "--out", str(out), "--json"]) == 0
    out_text, progress = capsys.readouterr()
    found = json.loads(out_text)
    assert (found["table"], found["curves"], found["epochs"], found["left_out"]) == (str(out), 20, 4, 0)
    assert f"error {found['error']:.3f}, with a spread of {found['spread']:.3f}" in progress
    assert "20 curves of 4 epochs" in progress
    assert str(tmp_path) not in out.read_text()
    table = BenchmarkTable.load(out)
    benchmark = TabularBenchmark(table)
    for row in table.rows:
        record = a_record(benchmark.space, **row.params)
        assert row.curve == pytest.approx(Known().curve(record))
        assert row.seconds == pytest.approx(Known().seconds(record))
        assert benchmark.cost(record.config) == cost_of(record.config)
        assert benchmark.final_miou(record) == pytest.approx(row.curve[-1], abs=0.02)


def test_between_the_rows_it_interpolates(tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    main(["replay", str(finished(tmp_path, 40)), "--out", str(out)])
    benchmark, other = TabularBenchmark(BenchmarkTable.load(out)), TabularBenchmark(BenchmarkTable.load(out), seed=1)
    rng = np.random.default_rng(0)
    records = [
        a_record(benchmark.space, **{"train.lr": 10 ** rng.uniform(-3.8, -2.2), "student.encoder": encoder})
        for encoder in ("resnet18", "mobilenet_v2") for _ in range(20)
    ]  # fmt: skip
    errors = [benchmark.final_miou(record) - Known().curve(record)[-1] for record in records]
    assert np.sqrt(np.mean(np.square(errors))) < 0.02
    assert np.std([Known().curve(record)[-1] for record in records]) > 0.02, "the mean of all would not do"
    assert all((benchmark.curve(record) == benchmark.curve(record)).all() for record in records)
    assert any((benchmark.curve(record) != other.curve(record)).any() for record in records)


def test_trials_that_were_stopped_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = finished(tmp_path, 30, stop="pareto"), tmp_path / "table.json"
    assert main(["replay", str(run), "--out", str(out)]) == 0
    rows = BenchmarkTable.load(out).rows
    assert 8 <= len(rows) < 30
    assert f"{30 - len(rows)} trials without a whole curve" in capsys.readouterr().out
    assert all(len(row.curve) == 4 for row in rows)


def test_too_few_trials_and_folders_without_a_study_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.json"
    assert main(["replay", str(finished(tmp_path, 5)), "--out", str(out)]) == 2
    assert "at least 8 trials" in capsys.readouterr().err
    assert main(["replay", str(tmp_path / "none"), "--out", str(out)]) == 2
    assert "There is no study in" in capsys.readouterr().err
    assert not out.exists()


def test_the_table_is_plain_json(tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    main(["replay", str(finished(tmp_path, 9)), "--out", str(out)])
    content = json.loads(out.read_text())
    assert set(content) == {"space", "rows"}
    assert set(content["rows"][0]) == {"params", "cost", "seconds", "curve"}
