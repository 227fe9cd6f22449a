"""A resumed study is the same study, in its space, data and weights; what is not the same is refused or said."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdsearch.api.identity import StudyIdentity
from kdsearch.api.request import StudyRequest, requested_space
from kdsearch.api.runner import StudyRunner
from kdsearch.api.space import Space, as_overrides
from kdsearch.config.space.search_space import load_space
from kdsearch.data.store import file_digests
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.callbacks import StudyCallback
from kdsearch.search.study_record import StudyRecord
from tests.data.layouts import write_folder

SPACE = """
name: toy
data: {name: folder, path: set, size: [32, 32]}
student: {arch: fpn, encoder: {choice: [resnet18, mobilenet_v2]}}
train: {lr: {log: [1.0e-4, 1.0e-2], default: 1.0e-3}, epochs: 2}
search: {trials: 4, rungs: [1]}
"""


class Begun(Exception):  # noqa: N818
    """The study has recorded everything; workers would start now."""


class Messages(StudyCallback):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_message(self, text: str) -> None:
        self.lines.append(text)


Run = Callable[..., list[str]]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Starts or resumes the study `x` in `runs` up to its first trial; returns what it said."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "set")
    (tmp_path / "toy.yaml").write_text(SPACE)

    def stop(*arguments: object) -> None:
        raise Begun

    monkeypatch.setattr(StudyRunner, "_add_callbacks", stop)

    def run(space: Any = "toy.yaml", set: dict[str, Any] | None = None, **request: Any) -> list[str]:
        messages = Messages()
        resume, data = request.get("resume", False), request.get("data")
        given = requested_space(space, data=data, resume=resume)
        storage = request.pop("storage", str(tmp_path / "runs"))
        whole = StudyRequest(given, as_overrides(set or {}), name="x", storage=storage, **request)
        with pytest.raises(Begun):
            StudyRunner(whole, [messages]).execute()
        return messages.lines

    return run


def swap(folder: Path, split: str = "val") -> None:
    """Exchange the masks of the first two images of a split."""
    one, other = sorted((folder / "labels" / split).iterdir())[:2]
    first, second = one.read_bytes(), other.read_bytes()
    assert first != second
    one.write_bytes(second)
    other.write_bytes(first)


def listing(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_study_records_its_data_its_versions_and_its_space_with_all_defaults(study: Run, tmp_path: Path) -> None:
    study()
    run = RunFolder(tmp_path / "runs" / "x")
    record = StudyRecord.load(run)
    assert record is not None
    assert len(record.data) == 64
    assert {"torch", "kdsearch"} <= set(record.versions)
    text = run.space.read_text()
    assert f"path: {tmp_path / 'set'}" in text
    assert "weight_decay" in text
    assert "reduction" in text


# ---- data ------------------------------------------------------------------------------------------------------------


def test_labels_corrected_in_place_are_refused_with_their_names_and_the_way_on(study: Run, tmp_path: Path) -> None:
    study()
    before = listing(tmp_path / "runs")
    swap(tmp_path / "set")
    with pytest.raises(UserError) as error:
        study(resume=True)
    message = str(error.value)
    assert "2 changed (" in message
    for label in sorted((tmp_path / "set" / "labels" / "val").iterdir())[:2]:
        assert f"labels/val/{label.name}" in message
    assert f"warm_start {tmp_path / 'runs' / 'x'}" in message
    assert listing(tmp_path / "runs") == before, "nothing is built from the other data"
    swap(tmp_path / "set")
    study(resume=True)


def test_a_moved_data_set_is_accepted_at_its_new_place(study: Run, tmp_path: Path) -> None:
    study()
    (tmp_path / "set").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"does not exist; give data folder=FOLDER"):
        study(resume=True)
    said = study(resume=True, data="folder=moved")
    assert any("has moved from" in line and "its content is the same" in line for line in said)
    assert not any("space has changed" in line for line in said), "a place is no part of the space"
    assert load_space(tmp_path / "runs" / "x" / "space.yaml").default().trial.data.path == str(tmp_path / "moved")
    study(resume=True)


def test_other_data_at_the_new_place_are_refused(study: Run, tmp_path: Path) -> None:
    study()
    shutil.copytree(tmp_path / "set", tmp_path / "other")
    swap(tmp_path / "other", "train")
    with pytest.raises(UserError, match=r"the data set folder is not the one .* 2 changed \(labels/train/"):
        study(resume=True, data="folder=other")
    (tmp_path / "other" / "classes.yaml").write_text("classes: [a, b, c, d, e, f, g, h, i]\n")
    with pytest.raises(UserError, match="read in another way"):
        study(resume=True, data="folder=other")


def test_another_reader_is_refused(study: Run, tmp_path: Path) -> None:
    study()
    with pytest.raises(UserError, match=r"data\.name.* cannot change on resume=True"):
        study(resume=True, data="camvid=set")


def test_a_relative_path_is_resumed_from_another_folder(study: Run, tmp_path: Path, monkeypatch: Any) -> None:
    study()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    study(str(tmp_path / "toy.yaml"), resume=True)


def test_a_copy_without_times_has_the_same_store_and_the_same_teacher(study: Run, tmp_path: Path) -> None:
    teacher = {"teacher": {"arch": "fpn", "encoder": "resnet18"}, "distill": {"kd": {}}}
    study(set=teacher)
    shutil.copytree(tmp_path / "set", tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.copytree(tmp_path / "runs", tmp_path / "runs2", copy_function=shutil.copyfile)
    teachers: list[Path] = []
    import kdsearch.search.teacher as module

    folder = module.teacher_folder
    module.teacher_folder = lambda *a: (teachers.append(folder(*a)), teachers[-1])[1]  # type: ignore[assignment]
    try:
        study(resume=True)
        study(resume=True, data="folder=copy")
        study(resume=True, data="folder=copy", storage=str(tmp_path / "runs2"))
    finally:
        module.teacher_folder = folder
    assert len({path.name for path in teachers}) == 1
    for runs in ("runs", "runs2"):
        assert len(list((tmp_path / runs / ".cache" / "data").glob("folder-*"))) == 1


def test_the_second_time_the_files_are_not_read(study: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study()
    monkeypatch.setattr(file_digests, "digest_of", None)
    study(resume=True)


def test_a_study_without_a_record_is_resumed_and_recorded_with_a_sentence(study: Run, tmp_path: Path) -> None:
    study()
    run = RunFolder(tmp_path / "runs" / "x")
    run.record.unlink()
    run.content.unlink()
    assert any("did not record the content of its data" in line for line in study(resume=True))
    assert StudyRecord.load(run) is not None
    swap(tmp_path / "set")
    with pytest.raises(UserError, match="2 changed"):
        study(resume=True)


@pytest.mark.parametrize("file", ["study.json", "content.json"])
@pytest.mark.parametrize("text", ["", "[]", '{"data": 3}'])
def test_a_damaged_record_is_named(study: Run, tmp_path: Path, file: str, text: str) -> None:
    study()
    swap(tmp_path / "set")
    (tmp_path / "runs" / "x" / file).write_text(text)
    with pytest.raises(UserError, match=rf"{file} .*bring it back from a copy"):
        study(resume=True)


def test_other_weights_under_the_same_name_are_refused(study: Run, tmp_path: Path) -> None:
    from kdsearch.config.networks import SmpConfig
    from kdsearch.data.registry import open_reader
    from kdsearch.models.registry import build_network

    def write(seed: int) -> None:
        import torch

        torch.manual_seed(seed)
        data = load_space("toy.yaml").default().trial.data
        network = build_network(SmpConfig(arch="fpn", encoder="resnet18"), open_reader(data).info)
        torch.save(network.state_dict(), tmp_path / "teacher.pt")

    write(0)
    study(set={"teacher": {"arch": "fpn", "encoder": "resnet18", "checkpoint": "teacher.pt"}, "distill": {"kd": {}}})
    os.utime(tmp_path / "teacher.pt", (1, 1))
    study(resume=True)
    shutil.copyfile(tmp_path / "teacher.pt", tmp_path / "moved.pt")
    study(resume=True, set={"teacher.checkpoint": str(tmp_path / "moved.pt")})
    write(1)
    study(resume=True)
    (tmp_path / "teacher.pt").rename(tmp_path / "moved.pt")
    with pytest.raises(UserError, match=r"moved\.pt holds other weights than when .*warm_start"):
        study(resume=True)


# ---- the space -------------------------------------------------------------------------------------------------------


def test_another_space_is_never_resumed_in_silence(study: Run, tmp_path: Path) -> None:
    study()
    for other in ("afdcd", "clfd", Space("afdcd", profile="demo")):
        with pytest.raises(UserError, match=r"searches the space toy, not \w+: give toy, or another name"):
            study(other, resume=True)
    with pytest.raises(UserError, match="not nothing"):
        study("nothing", resume=True)
    study("toy", resume=True)  # by its name, where its file is gone


def test_an_edited_file_is_refused_with_what_changed(study: Run, tmp_path: Path) -> None:
    study()
    (tmp_path / "toy.yaml").write_text("# a remark\n" + SPACE)
    study(resume=True)
    (tmp_path / "toy.yaml").write_text(SPACE.replace("1.0e-2]", "1.0e-1]").replace("trials: 4", "trials: 6"))
    with pytest.raises(UserError) as error:
        study(resume=True)
    assert "train.lr.log, search.trials" in str(error.value)
    assert "extend toy.yaml" in str(error.value)
    study(str(tmp_path / "runs" / "x" / "space.yaml"), resume=True)
    study(resume=True, extend="toy.yaml")
    assert load_space(tmp_path / "runs" / "x" / "space.yaml").search.trials == 6


def test_an_edited_space_in_code_is_refused_with_what_changed(study: Run, tmp_path: Path) -> None:
    def space(trials: int = 4, **train: Any) -> dict[str, Any]:
        data = {"name": "folder", "path": str(tmp_path / "set"), "size": [32, 32]}
        return {
            "name": "toy", "data": data, "student": {"arch": "fpn", "encoder": "resnet18"},
            "train": {"epochs": 2, **train}, "search": {"trials": trials, "rungs": [1]},
        }  # fmt: skip

    study(space(), set={"train.weight_decay": 0.5})
    study(space(), resume=True)
    study(Space(space()), resume=True, set={"search.trials": 5})
    with pytest.raises(UserError, match=r"not the one with which .* began \(train\.lr, search\.trials\)"):
        study(space(trials=9, lr=0.5), resume=True)
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    there = space()
    there["data"]["path"] = str(tmp_path / "copy")
    study(there, resume=True)
    assert load_space(tmp_path / "runs" / "x" / "space.yaml").default().trial.data.path == str(tmp_path / "copy")


def test_a_shipped_space_that_a_new_version_changed_is_said(
    study: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdsearch.config.space import shipped

    for name in ("kdsearch.config.space.shipped", "kdsearch.api.resumed_space"):
        monkeypatch.setattr(f"{name}.spaces_folder", lambda: tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "toy.yaml").write_text(SPACE)
    assert shipped.shipped_spaces() == ["toy"]
    study("toy", data="folder=set")
    (tmp_path / "shipped" / "toy.yaml").write_text(SPACE.replace("1.0e-3", "2.0e-3"))
    said = study("toy", resume=True)
    assert any("toy has changed since this study began (train.lr.default): the study keeps its own" in s for s in said)
    assert load_space(tmp_path / "runs" / "x" / "space.yaml").default().trial.train.lr == 1.0e-3


def test_other_defaults_for_a_study_that_did_not_record_them_are_refused(study: Run, tmp_path: Path) -> None:
    """A study of an earlier version: its space is as it was written, and its trials are under the defaults of then."""
    from kdsearch.search.storage.study_storage import StudyStorage

    study()
    run = RunFolder(tmp_path / "runs" / "x")
    storage = StudyStorage.open(run.journal, load_space(run.space), lambda config: {"gflops": 1.0, "params_m": 1.0})
    assert storage.ask() is not None
    storage.close()
    run.record.unlink()
    default = load_space(run.space).default().trial.train.weight_decay
    text = run.journal.read_text().replace(f'"weight_decay":{default}', '"weight_decay":0.125')
    assert "0.125" in text
    run.journal.write_text(text.replace(f"weight_decay: {default}", ""))
    with pytest.raises(UserError, match=r"set 'train\.weight_decay=0\.125'"):
        study(resume=True)
    study(resume=True, set={"train.weight_decay": 0.125})


def test_the_versions_of_then_are_said(study: Run, tmp_path: Path) -> None:
    study()
    record = tmp_path / "runs" / "x" / "study.json"
    facts = json.loads(record.read_text())
    facts["versions"]["torch"] = "1.0"
    record.write_text(json.dumps(facts))
    assert any("began with torch 1.0" in line for line in study(resume=True))


def test_a_teacher_that_was_trained_again_is_said(tmp_path: Path) -> None:
    run, weights, said = RunFolder(tmp_path / "x"), tmp_path / "t" / "model.safetensors", []
    run.path.mkdir()
    weights.parent.mkdir()
    weights.write_text("one")

    def driver(record: StudyRecord) -> StudyRecord:
        identity = StudyIdentity(StudyRequest("toy"), run)
        identity.record = record
        for _ in range(2):
            identity.note_teacher(weights, said.append)
        kept = StudyRecord.load(run)
        assert kept == identity.record
        assert kept is not None
        return kept

    record = driver(driver(StudyRecord("data")))
    assert said == []
    weights.write_text("other")
    driver(record)
    assert len(said) == 1
    assert "was trained again since this study began" in said[0]


def test_the_file_of_an_extension_is_the_space_of_the_study_from_then_on(study: Run, tmp_path: Path) -> None:
    study(trials=5)
    text = SPACE.replace("trials: 4", "trials: 7")
    (tmp_path / "toy.yaml").write_text(text)
    study(resume=True, extend="toy.yaml")
    study(resume=True)  # it is the study's own now
