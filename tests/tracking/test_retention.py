from __future__ import annotations

from kdsearch.io.run_folder import RunFolder
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.tracking.retention import RetentionCallback


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
