"""A journal is read while a driver holds it, as far as it is written, and never changed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.errors import UserError
from kdsearch.search.storage.reader import read_history
from kdsearch.search.storage.study_storage import StudyStorage
from tests.search.conftest import SPACE, cost_of

OBJECTIVES = {"miou": "max", "gflops": "min"}


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


@pytest.fixture
def storage(space: SearchSpace, journal: Path) -> Iterator[StudyStorage]:
    storage = StudyStorage.open(journal, space, cost_of)
    yield storage
    storage.close()


def search(storage: StudyStorage, trials: int) -> None:
    for _ in range(trials):
        trial = storage.ask()
        assert trial is not None
        trial.epoch, trial.seconds = 4, 9.0
        # The learning rate alone decides: 3e-3 is best.
        trial.metrics = {"val/miou": 0.5 - abs(math.log10(trial.config.train.lr / 3e-3)) / 4}
        trial.curve = {1: 0.1, 4: trial.miou}
        storage.tell(trial, "COMPLETE")


def test_a_journal_in_use_is_read_whole_and_left_alone(storage: StudyStorage, journal: Path) -> None:
    search(storage, 3)
    running = storage.ask()
    assert running is not None
    repeat = storage.add("confirm", running.config, {"of": "t0000"})
    before = journal.read_bytes()
    history = read_history(journal, OBJECTIVES)
    assert history.trials == storage.trials
    assert history.trials[-1] == repeat
    assert {r.id for r in history.trials if r.state == "COMPLETE"} <= set(history.ended)
    assert running.id not in history.ended
    assert journal.read_bytes() == before


def test_an_entry_in_writing_is_left_out(storage: StudyStorage, journal: Path) -> None:
    search(storage, 2)
    whole = read_history(journal, OBJECTIVES)
    with journal.open("ab") as file:
        file.write(b'{"op_code": 5, "worker')
    assert read_history(journal, OBJECTIVES) == whole


@pytest.mark.parametrize("line", ["not JSON", "[1]", '{"op_code": 99}', '{"op_code": 4, "study_id": 7}'])
def test_what_is_no_journal_is_refused(journal: Path, line: str) -> None:
    journal.write_text(line + "\n")
    with pytest.raises(UserError, match="cannot be read as a study's journal"):
        read_history(journal, OBJECTIVES)


def test_importance_waits_for_enough_trials_and_finds_what_matters(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(SPACE.replace("trials: 8", "trials: 60"))
    storage = StudyStorage.open(tmp_path / "study.journal", load_space(tmp_path / "toy.yaml"), cost_of)
    search(storage, 19)
    assert read_history(tmp_path / "study.journal", OBJECTIVES).importance == {}
    search(storage, 30)
    importance = read_history(tmp_path / "study.journal", OBJECTIVES).importance
    storage.close()
    assert list(importance) == ["miou", "gflops", "frontier"]
    assert max(importance["miou"], key=importance["miou"].__getitem__) == "train.lr"
    assert list(importance["gflops"]) == ["student.encoder"], "a cost follows from the student alone"
    for shares in importance.values():
        assert sum(shares.values()) == pytest.approx(1)
