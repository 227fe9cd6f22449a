from __future__ import annotations

from pathlib import Path

from kdsearch.config.space import load_space
from kdsearch.run_folder import RunFolder
from kdsearch.search.record import StudyRecord
from kdsearch.tracking.tables import Tables


def test_what_a_worker_is_writing_of_a_running_trial_is_left_alone(tmp_path: Path) -> None:
    run = RunFolder.at(str(tmp_path), "study")
    run.create()
    space = load_space("clfd", profile="demo")
    record = StudyRecord(run.journal, space, lambda config: {"gflops": 0.4, "params_m": 2.0})
    running = record.ask()
    assert running is not None
    kept = {running.id, f".{running.id}.77.partial"}
    for name in (*kept, "t0042", ".t0042.78.partial"):
        (run.students / name).mkdir()
    for name in (running.id, "t0042", "teacher"):
        run.checkpoint(name).write_text("")
    Tables(space, run, record, dict).frontier([], 0.0)
    record.close()
    assert {path.name for path in run.students.iterdir()} == kept
    assert {path.stem for path in run.checkpoints.iterdir()} == {running.id, "teacher"}
