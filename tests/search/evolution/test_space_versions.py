"""A study resumed with a changed space: imported, skipped and refused trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.evolution.space_versions import keep_old_spaces, space_of_resumed_study
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord
from tests.search.conftest import SPACE, cost_of

Load = Callable[[str], SearchSpace]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str) -> SearchSpace:
        path = tmp_path / "changed.yaml"
        path.write_text(text)
        return load_space(path)

    return load_text


def ask(storage: StudyStorage) -> TrialRecord:
    trial = storage.ask()
    assert trial is not None
    return trial


def finish(storage: StudyStorage, trial: TrialRecord, miou: float, **metrics: float) -> None:
    trial.epoch, trial.metrics = 4, {"val/miou": miou, **metrics}
    storage.tell(trial, "COMPLETE")


@pytest.fixture
def begun(tmp_path: Path, space: SearchSpace) -> list[TrialRecord]:
    """A journal with five trials: two complete, one stopped, one failed, one running."""
    storage = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
    trials = [ask(storage) for _ in range(5)]
    finish(storage, trials[0], 0.5)
    finish(storage, trials[1], 0.7)
    trials[2].epoch, trials[2].metrics = 2, {"val/miou": 0.1}
    storage.tell(trials[2], "PRUNED")
    storage.tell(trials[3], "FAIL", "loss/kd is not finite")
    storage.close()
    return trials


def test_the_same_space_stays_in_the_same_version(tmp_path: Path, load: Load, begun: list[TrialRecord]) -> None:
    again = StudyStorage.open(tmp_path / "study.journal", load(SPACE.replace("trials: 8", "trials: 20")), cost_of)
    assert again.extension is None
    assert again.old_spaces == []
    again.close()


def test_a_new_category_and_a_wider_range_import_all_that_could_be(
    tmp_path: Path, load: Load, begun: list[TrialRecord]
) -> None:
    wider = SPACE.replace("mobilenet_v2]", "mobilenet_v2, timm-mobilenetv3]").replace("1.0e-2]", "1.0e-1]")
    again = StudyStorage.open(tmp_path / "study.journal", load(wider), lambda c: {"gflops": 2.0, "params_m": 1.0})
    extension = again.extension
    assert extension is not None
    assert extension.version == 2
    assert extension.running == [begun[4].id]
    assert list(extension.skipped) == [begun[3].id]  # the failed one
    infeasible = [r for r in again.trials if r.state == "INFEASIBLE"]
    assert extension.imported == 3 + len(infeasible)
    told = {t.user_attrs["imported"]: t for t in again._search.trials if "imported" in t.user_attrs}
    assert told[begun[1].id].values == [0.7, begun[1].cost["gflops"]]
    # Old trials keep their ids and stay on the frontier; new ones go on counting.
    assert [r.miou for r in again.frontier()] == [r.miou for r in begun[:2] if r in _best(begun[:2])]
    last = max(int(r.id[1:]) for r in again.trials)
    assert int(ask(again).id[1:]) > last
    # The one that was running ends under its old settings, in its old study, and is imported then.
    running = again.get(begun[4].id)
    assert running.config == begun[4].config
    finish(again, running, 0.9)
    assert [t.values for t in again._search.trials if t.user_attrs.get("imported") == running.id] == [
        [0.9, running.cost["gflops"]]
    ]
    before = [str(r) for r in again.trials if r.state != "RUNNING"]
    again.close()
    reopened = StudyStorage.open(tmp_path / "study.journal", load(wider), lambda c: {"gflops": 2.0, "params_m": 1.0})
    assert reopened.extension is None
    assert [str(r) for r in reopened.trials if r.state != "RUNNING"] == before
    imported = [t.user_attrs["imported"] for t in reopened._search.trials if "imported" in t.user_attrs]
    assert len(imported) == len(set(imported))
    reopened.close()


def _best(records: list[TrialRecord]) -> list[TrialRecord]:
    return [
        r for r in records
        if not any(o is not r and o.miou >= r.miou and o.cost["gflops"] <= r.cost["gflops"] for o in records)
    ]  # fmt: skip


def test_trials_that_the_new_space_could_not_draw_are_kept_with_the_reason(
    tmp_path: Path, load: Load, begun: list[TrialRecord]
) -> None:
    term = SPACE.replace("distill: {kd:", "distill: {at: {weight: 3}, kd:")
    storage = StudyStorage.open(tmp_path / "study.journal", load(term), cost_of)
    assert storage.extension is not None
    assert storage.extension.imported == 0
    assert "distill.at.weight is 3 here, None there" in storage.extension.skipped[begun[0].id]
    assert begun[1].id in {member.id for member in storage.frontier()}
    assert ask(storage).config.distill.keys() == {"at", "kd"}
    storage.close()

    optional = SPACE.replace("distill: {kd:", "distill: {at: {one_of: [null, {weight: 3}], default: on}, kd:")
    third = StudyStorage.open(tmp_path / "study.journal", load(optional), cost_of)
    assert third.extension is not None
    assert third.extension.version == 3
    assert third.extension.imported >= 3  # without the term is a branch now
    assert ask(third).config.distill.keys() == {"at", "kd"}
    third.close()


def test_a_narrower_range_names_the_values_outside(tmp_path: Path, load: Load, begun: list[TrialRecord]) -> None:
    narrow = SPACE.replace("[1.0e-4, 1.0e-2], default: 1.0e-3", "[9.0e-4, 1.1e-3], default: 1.0e-3")
    storage = StudyStorage.open(tmp_path / "study.journal", load(narrow), cost_of)
    assert storage.extension is not None
    assert storage.extension.imported >= 1  # the published point
    assert "is outside [0.0009, 0.0011]" in storage.extension.skipped[begun[1].id]
    assert any("train.lr" in line for line in storage.extension.lines())
    storage.close()


def test_another_constraint_applies_to_old_trials(tmp_path: Path, load: Load, begun: list[TrialRecord]) -> None:
    tight = load(SPACE.replace('gflops: "<= 5"', 'gflops: "<= 2", val/miou: ">= 0.6"'))
    storage = StudyStorage.open(tmp_path / "study.journal", tight, cost_of)
    assert all(r.cost["gflops"] <= 2 and r.miou >= 0.6 for r in storage.frontier())
    complete = [r for r in storage.trials if r.state == "COMPLETE"]
    assert all(bool(r.broken) == (r.cost["gflops"] > 2 or r.miou < 0.6) for r in complete)
    storage.close()

    loose = load(SPACE.replace('gflops: "<= 5"', 'gflops: "<= 50"'))
    again = StudyStorage.open(tmp_path / "study.journal", loose, cost_of)
    assert all(r.feasible for r in again.trials if r.state == "COMPLETE")
    asked = {ask(again).config.student.encoder for _ in range(12)}  # type: ignore[union-attr]
    assert "resnet34" in asked  # 9 GFLOPs: never trained under the first bound
    again.close()


def test_a_version_cut_off_at_its_start_begins_again(
    tmp_path: Path, load: Load, begun: list[TrialRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    wider = load(SPACE.replace("1.0e-2]", "1.0e-1]"))

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kdsearch.search.sampling.search_study.SearchStudy.enqueue_trial", die)
        with pytest.raises(KeyboardInterrupt):
            StudyStorage.open(tmp_path / "study.journal", wider, cost_of)
    storage = StudyStorage.open(tmp_path / "study.journal", wider, cost_of)
    assert storage.extension is not None
    assert storage.extension.version == 2
    imported = [t.user_attrs["imported"] for t in storage._search.trials if "imported" in t.user_attrs]
    assert len(imported) == len(set(imported)) == storage.extension.imported
    storage.close()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=9", "train.epochs cannot change on resume=True"),
        ("data.size=[32, 32]", "data.size cannot change on resume=True"),
        ("teacher.encoder=resnet18", "teacher.encoder cannot change on resume=True"),
        ("name=other", "A study keeps its name"),
    ],
)
def test_what_would_make_results_incomparable_is_refused(
    override: str, message: str, tmp_path: Path, space: SearchSpace
) -> None:
    run = RunFolder(tmp_path)
    run.space.write_text(space.to_yaml())
    with pytest.raises(UserError, match=message):
        space_of_resumed_study(run, None, [override])


def test_the_journal_refuses_them_too_and_is_left_as_it_was(
    tmp_path: Path, load: Load, begun: list[TrialRecord]
) -> None:
    longer = load(SPACE.replace("epochs: 4", "epochs: 9"))
    with pytest.raises(UserError, match=r"train\.epochs cannot change"):
        StudyStorage.open(tmp_path / "study.journal", longer, cost_of)
    storage = StudyStorage.open(tmp_path / "study.journal", load(SPACE), cost_of)
    assert storage.extension is None
    storage.close()


def test_an_edited_space_and_overrides_change_the_space_of_the_run(tmp_path: Path, space: SearchSpace) -> None:
    run = RunFolder(tmp_path)
    run.space.write_text(space.to_yaml())
    (tmp_path / "edited.yaml").write_text(SPACE.replace("1.0e-2]", "1.0e-1]"))
    edited = space_of_resumed_study(run, str(tmp_path / "edited.yaml"), ["search.trials=50"])
    assert edited.search.trials == 50
    assert edited.parameters()["train.lr"].high == 0.1  # type: ignore[union-attr]
    keep_old_spaces(run, [space.to_yaml()])
    assert (tmp_path / "space-1.yaml").read_text() == space.to_yaml()
