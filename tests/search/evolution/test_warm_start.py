"""Trials of earlier studies in a new one: imported, enqueued or skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdsearch.config.space.search_space import SearchSpace, load_space, space_from_text
from kdsearch.data.store.content import Content
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.evolution.warm_start import describe_warm_start, warm_start
from kdsearch.search.storage.earlier_study import read_earlier
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.study_record import StudyRecord
from tests.search.conftest import SPACE, cost_of

CONTENT = Content({"classes": ["road", "car"]}, {"train": {"a": ["1", "2"]}, "val": {"b": ["3", "4"], "c": ["5", "6"]}})
OTHER = Content(CONTENT.rules, {"train": {"a": ["1", "2"]}, "val": {"b": ["3", "6"], "c": ["5", "4"]}})
"""The masks of b and c are exchanged."""


def keep(run: RunFolder, content: Content, **weights: str) -> StudyRecord:
    """Record the content of a study's data, and its weights by path."""
    run.content.write_text(content.to_json())
    record = StudyRecord(content.fingerprint, weights)
    record.save(run)
    return record


@pytest.fixture
def earlier(tmp_path: Path, space: SearchSpace) -> RunFolder:
    """A study of six complete trials, with the students of its frontier."""
    run = RunFolder(tmp_path / "runs" / "first")
    run.create()
    run.space.write_text(space.record())
    keep(run, CONTENT)
    storage = StudyStorage.open(run.journal, space, cost_of)
    for miou in (0.5, 0.4, 0.6, 0.3, 0.7, 0.2):
        trial = storage.ask()
        assert trial is not None
        trial.epoch, trial.metrics = 4, {"val/miou": miou}
        storage.tell(trial, "COMPLETE")
    for member in storage.frontier():
        run.student(member.id).mkdir()
        (run.student(member.id) / "model.safetensors").write_text(member.id)
    storage.close()
    return run


def begin(tmp_path: Path, text: str) -> tuple[StudyStorage, SearchSpace, RunFolder]:
    run = RunFolder(tmp_path / "runs" / "second")
    run.create()
    (tmp_path / "second.yaml").write_text(text)
    space = load_space(tmp_path / "second.yaml")
    return StudyStorage.open(run.journal, space, cost_of), space, run


def test_settings_of_another_data_set_are_enqueued_after_the_defaults(tmp_path: Path, earlier: RunFolder) -> None:
    storage, space, run = begin(tmp_path, SPACE.replace("size: [64, 96]", "size: [32, 64]").replace("s: 8", "s: 12"))
    study = read_earlier(str(earlier.path))
    entries = warm_start(storage, space, run, [study], keep(run, CONTENT))
    first = storage.ask()
    assert first is not None
    assert first.config == space.default().trial
    enqueued = [entry for entry in entries if entry.how == "settings"]
    assert len(enqueued) == 3  # a quarter of 12
    for entry in enqueued:
        trial = storage.ask()
        assert trial is not None
        assert trial.params == entry.settings
        assert trial.config.train.lr == next(r for r in study.ranked if r.id == entry.trial).config.train.lr
    assert all("data.size is [32, 64] here" in entry.why for entry in enqueued)
    assert all(r.state == "RUNNING" for r in storage.trials)  # no value of another data set is told
    kept = json.loads((run.path / "warm_start.json").read_text())["carried"]
    assert [(entry["trial"], entry["how"]) for entry in kept] == [(entry.trial, entry.how) for entry in entries]
    assert len(entries) == len(study.ranked)
    text = "\n".join(describe_warm_start(entries))
    assert "3 settings are enqueued" in text
    assert "raise --trials for more" in text
    storage.close()


def test_values_out_of_range_are_dropped_with_the_reason(tmp_path: Path, earlier: RunFolder) -> None:
    other = SPACE.replace("[1.0e-4, 1.0e-2], default: 1.0e-3", "[1.0e-6, 1.0e-5]").replace("mobilenet_v2]", "resnet50]")
    other = other.replace("distill: {", "distill: {at: {weight: {log: [1, 100], default: 7}}, ")
    storage, space, run = begin(tmp_path, other)
    entries = warm_start(storage, space, run, [read_earlier(str(earlier.path))], keep(run, CONTENT))
    part = [entry for entry in entries if entry.how == "part"]
    assert part
    for entry in part:
        assert "train.lr: " in entry.why
        assert "is outside [1e-06, 1e-05]" in entry.why
        assert entry.settings["train.lr"] == space.default().params["train.lr"]
        assert entry.settings["distill.at.weight"] == 7
    assert any(
        "student.encoder: mobilenet_v2 is not one of resnet18, resnet34, resnet50" in entry.why for entry in part
    )
    storage.close()


def test_results_of_equal_trials_are_imported_and_take_no_slot(tmp_path: Path, earlier: RunFolder) -> None:
    storage, space, run = begin(tmp_path, SPACE.replace("1.0e-2]", "1.0e-1]"))
    study = read_earlier(str(earlier.path))
    entries = warm_start(storage, space, run, [study], keep(run, CONTENT))
    assert {entry.how for entry in entries} == {"result"}
    assert storage.searched() == 0
    old = StudyStorage.open(earlier.journal, load_space(earlier.space), cost_of)
    front = old.frontier()
    old.close()
    assert sorted((m.miou, m.cost["gflops"]) for m in storage.frontier()) == sorted(
        (m.miou, m.cost["gflops"]) for m in front
    )
    for member in storage.frontier():
        assert member.origin.startswith(str(earlier.path))
        assert (run.student(member.id) / "model.safetensors").read_text() == Path(member.origin).name
    values = sorted(t.values[0] for t in storage._search.trials if t.values)
    assert values == sorted(r.miou for r in study.ranked)  # the sampler knows them all
    ids = {r.id for r in storage.trials}
    trial = storage.ask()
    assert trial is not None
    assert trial.id not in ids
    before = [(r.id, r.miou, r.origin) for r in storage.trials if r.state == "COMPLETE"]
    storage.close()
    again = StudyStorage.open(run.journal, space, cost_of)
    assert [(r.id, r.miou, r.origin) for r in again.trials if r.state == "COMPLETE"] == before
    assert again.searched() == 1
    again.close()


def test_the_earlier_study_is_left_as_it_is(tmp_path: Path, earlier: RunFolder) -> None:
    before = {path: path.read_bytes() for path in earlier.path.rglob("*") if path.is_file()}
    read_earlier(str(earlier.path))
    assert {path: path.read_bytes() for path in earlier.path.rglob("*") if path.is_file()} == before


def test_a_folder_without_a_study_is_refused(tmp_path: Path, space: SearchSpace) -> None:
    with pytest.raises(UserError, match="it holds no study; name a run folder"):
        read_earlier(str(tmp_path))
    run = RunFolder(tmp_path / "empty")
    run.create()
    run.space.write_text(space.to_yaml())
    StudyStorage.open(run.journal, space, cost_of).close()
    with pytest.raises(UserError, match="no trial of that study is complete yet"):
        read_earlier(str(run.path))
    run.journal.write_text("not a journal\nat all\n")
    with pytest.raises(UserError, match="its journal cannot be read"):
        read_earlier(str(run.path))


def test_no_result_is_taken_from_other_data(tmp_path: Path, earlier: RunFolder) -> None:
    """Labels were corrected in place: the space is the same, and so is every path."""
    storage, space, run = begin(tmp_path, SPACE)
    study = read_earlier(str(earlier.path))
    entries = warm_start(storage, space, run, [study], keep(run, OTHER))
    assert "result" not in {entry.how for entry in entries}
    assert not [r for r in storage.trials if r.state == "COMPLETE"]
    assert not [t for t in storage._search.trials if t.values], "the sampler is not told either"
    text = "\n".join(describe_warm_start(entries))
    assert "first: results left out: 6, since its data set is another one: of 6 files 2 changed (val b, val c)" in text
    assert any(entry.how == "settings" and "result left out" in entry.why for entry in entries)
    storage.close()


def test_no_result_is_taken_where_the_data_were_not_recorded(tmp_path: Path, earlier: RunFolder) -> None:
    earlier.record.unlink()
    storage, space, run = begin(tmp_path, SPACE)
    entries = warm_start(storage, space, run, [read_earlier(str(earlier.path))], keep(run, CONTENT))
    assert "result" not in {entry.how for entry in entries}
    assert "did not record its data" in "\n".join(describe_warm_start(entries))
    storage.close()


def test_equal_data_at_another_place_give_results(tmp_path: Path, earlier: RunFolder) -> None:
    there = json.loads(earlier.journal.read_text().splitlines()[0])
    assert there
    text = earlier.journal.read_text()
    assert '"path":null' in text
    earlier.journal.write_text(text.replace('"path":null', '"path":"/there"', 10**6))
    storage, space, run = begin(tmp_path, SPACE)
    entries = warm_start(storage, space, run, [read_earlier(str(earlier.path))], keep(run, CONTENT))
    assert {entry.how for entry in entries} == {"result"}
    assert all(r.config.data.path is None for r in storage.trials)
    storage.close()


@pytest.mark.parametrize(("here", "how"), [("same", "result"), ("other", "settings")])
def test_results_under_another_checkpoint_of_that_name_are_left_out(
    tmp_path: Path, space: SearchSpace, here: str, how: str
) -> None:
    text = SPACE.replace("resnet50}", "resnet50, checkpoint: /w/teacher.pt}")
    run = RunFolder(tmp_path / "runs" / "first")
    run.create()
    first = space_from_text(text, "first")
    run.space.write_text(first.record())
    keep(run, CONTENT, **{"/w/teacher.pt": "same"})
    storage = StudyStorage.open(run.journal, first, cost_of)
    trial, best = storage.ask(), storage.ask()
    assert trial is not None
    assert best is not None
    best.epoch, best.metrics = 4, {"val/miou": 0.5}
    storage.tell(best, "COMPLETE")
    storage.close()
    storage, ours, second = begin(tmp_path, text.replace("/w/teacher.pt", "/moved/teacher.pt"))
    record = keep(second, CONTENT, **{"/moved/teacher.pt": here})
    (entry,) = warm_start(storage, ours, second, [read_earlier(str(run.path))], record)
    assert entry.how == how
    assert ("holds other weights" in entry.why) is (how == "settings")
    storage.close()
