from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kdsearch.config.space.search_space import load_space
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.tracking.retention import RetentionCallback


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder.at(str(tmp_path), "study")
    folder.create()
    return folder


@pytest.fixture
def record(run: RunFolder) -> Iterator[StudyStorage]:
    space = load_space("clfd", profile="demo", overrides=["confirm.seeds=2"])
    record = StudyStorage.open(run.journal, space, lambda config: {"gflops": 0.4, "params_m": 2.0})
    yield record
    record.close()


def test_files_that_a_worker_writes_for_a_running_trial_are_kept(run: RunFolder, record: StudyStorage) -> None:
    running = record.ask()
    assert running is not None
    kept = {running.id, f".{running.id}.77.partial"}
    for name in (*kept, "t0042", ".t0042.78.partial"):
        (run.students / name).mkdir()
    for name in (running.id, "t0042", "teacher"):
        run.checkpoint(name).write_text("")
    RetentionCallback(record.space, run, record).on_frontier([], 0.0)
    assert {path.name for path in run.students.iterdir()} == kept
    assert {path.stem for path in run.checkpoints.iterdir()} == {running.id, "teacher"}
