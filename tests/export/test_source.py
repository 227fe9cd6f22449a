"""Students of a study and alone, as the source of an export."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.export.bundle import export
from kdsearch.export.source import from_folder
from kdsearch.models.cost import network_cost
from tests.conftest import config
from tests.export.cases import run_folder, student_folder


@pytest.fixture
def alone(tmp_path: Path, store: Store) -> Path:
    """The folder that `kdsearch train` writes."""
    return student_folder(tmp_path / "alone", store)


def test_a_student_that_was_trained_alone(
    alone: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdsearch.export.timing.SECONDS", 0.0)
    source = from_folder(alone, None, None)
    cost = network_cost(config().student, store.info, store.size)
    assert (source.point.miou, source.point.gflops, source.point.params_m) == (0.5, cost.gflops, cost.params_m)
    export(str(alone), tmp_path / "bundle", say=lambda line: None)
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "| mIoU on val | 0.5000 |" in card
    assert "| trained | without a study" in card
    assert "search" not in card.partition("## Use")[0].partition("\n\n")[2].replace("kdsearch", "")
    export(str(tmp_path / "bundle"), tmp_path / "again", say=lambda line: None)  # a bundle is such a folder too


@pytest.mark.parametrize(("best", "budget"), [("knee", None), (None, "gflops<=5")])
def test_there_is_nothing_to_choose(alone: Path, best: str | None, budget: str | None) -> None:
    with pytest.raises(UserError, match="holds one student; leave best and budget out"):
        from_folder(alone, best, budget)  # type: ignore[arg-type]


def test_a_student_of_a_study_is_one_student_too(tmp_path: Path, store: Store) -> None:
    run = run_folder(tmp_path, store)
    assert from_folder(run, None, None).space == "tiny"
    assert from_folder(run / "students" / "t0000", None, None).space == ""


def test_links_and_missing_files_are_refused(alone: Path, tmp_path: Path) -> None:
    metrics = alone / "metrics.json"
    shutil.move(metrics, tmp_path / "elsewhere.json")
    with pytest.raises(UserError, match=r"metrics\.json is missing; copy the folder whole"):
        from_folder(alone, None, None)
    metrics.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(UserError, match=r"metrics\.json is a link"):
        from_folder(alone, None, None)
