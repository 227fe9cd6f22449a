"""The report of a study on a tracking server: the same numbers as from its run folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdsearch.cli.main import main
from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.report.results import read_results
from kdsearch.report.server import results_of_server
from kdsearch.search.callbacks import StudyEnd
from kdsearch.tracking.mlflow.callback import MLflowCallback
from kdsearch.tracking.mlflow.reader import run_folder_of
from tests.report.test_pages import Page
from tests.tracking.made_up import MadeUp


@pytest.mark.slow
def test_a_tracking_server_gives_the_same_report(store: Store, tmp_path: Path) -> None:
    study = MadeUp(tmp_path, store.path.name)
    study.run.stores.rmdir()
    study.run.stores.symlink_to(store.path.parent)
    store = Store.open(study.run.stores / store.path.name)
    study.search()
    study.confirm()
    with MLflowCallback(None, study.space, study.run, print) as tracker:
        tracker.begin(store)
        for record in study.record.trials:
            tracker.on_trial_start(record)
            tracker.on_trial_result(record)
            tracker.on_trial_end(record)
        tracker.on_frontier(study.members, 0.7)
        study.tables.write("done")
        tracker.on_study_end(StudyEnd("done"))
        uri = tracker.uri
    run_id = json.loads((study.run.path / "tracking.json").read_text())["runs"][""]
    there, here = results_of_server(f"runs:/{run_id}", uri), read_results(study.run)
    assert (there.name, there.status, there.teacher_miou) == (here.name, "done", here.teacher_miou)
    assert {t.id: (t.state, t.miou, t.gflops, t.of) for t in there.trials if t.state != "FAIL"} == {
        t.id: (t.state, t.miou, t.gflops, t.of) for t in here.trials if t.state != "FAIL"
    }
    assert [(p.trial.id, p.known("gain"), p.gain_of_class) for p in there.points] == [
        (p.trial.id, p.known("gain"), p.gain_of_class) for p in here.points
    ]
    out = tmp_path / "new" / "folder" / "from-server.html"
    assert main(["report", f"runs:/{run_id}", "--tracking-uri", uri, "--out", str(out)]) == 0
    assert "+0.060" in Page(out).text
    child = next(t for t in there.trials).run.rpartition("/")[2]
    assert main(["report", f"runs:/{child}", "--tracking-uri", uri, "--out", str(out)]) == 2
    assert run_folder_of(f"runs:/{run_id}", uri) == study.run.path
    with pytest.raises(UserError, match="It is a trial of runs:/"):
        run_folder_of(f"runs:/{child}", uri)
