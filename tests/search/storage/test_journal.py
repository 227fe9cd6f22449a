"""What crashes leave at the end of a journal is cut off; what they cannot have done is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.config.space.search_space import SearchSpace
from kdsearch.errors import UserError
from kdsearch.search.storage.study_storage import StudyStorage
from tests.search.conftest import cost_of


@pytest.fixture
def journal(tmp_path: Path, space: SearchSpace) -> Path:
    """The journal of a study with one complete trial."""
    storage = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
    trial = storage.ask()
    assert trial is not None
    trial.epoch, trial.metrics = 4, {"val/miou": 0.5}
    storage.tell(trial, "COMPLETE")
    storage.close()
    assert storage.cut == 0
    return tmp_path / "study.journal"


@pytest.mark.parametrize(
    "rest",
    [
        b'{"op_code": 5, "trial_id": 0, "us',
        b'{"op_code": 5, "trial_id": 0, "us\n',
        b"7\n",
        b"\0" * 4096,
        b'{"op_code": 5, "tri' + b"\0" * 100 + b"\n" + b"\0" * 50,
    ],
    ids=["torn", "no JSON", "no entry", "zeros", "torn, then zeros"],
)
def test_a_last_line_that_a_crash_has_spoilt_is_cut_off(rest: bytes, journal: Path, space: SearchSpace) -> None:
    whole = journal.read_bytes()
    journal.write_bytes(whole + rest)
    again = StudyStorage.open(journal, space, cost_of)
    assert again.cut == len(rest)
    assert [trial.state for trial in again.trials] == ["COMPLETE"]
    trial = again.ask()
    assert trial is not None
    again.tell(trial, "FAIL")
    again.close()
    assert journal.read_bytes().startswith(whole)
    last = StudyStorage.open(journal, space, cost_of)
    assert (last.cut, last.get(trial.id).state) == (0, "FAIL")
    last.close()


def test_a_trial_whose_end_was_lost_is_running_again(journal: Path, space: SearchSpace) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    (outcome,) = (number for number, line in enumerate(lines) if b"outcome" in line)
    journal.write_bytes(b"".join(lines[:outcome]) + lines[outcome][:40])
    again = StudyStorage.open(journal, space, cost_of)
    assert again.cut == 40
    assert [trial.id for trial in again.running()] == ["t0000"]
    again.close()


def test_damage_in_the_middle_is_an_error_with_its_line_and_nothing_is_changed(
    journal: Path, space: SearchSpace
) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = b"\0" * len(lines[2].rstrip()) + b"\n"
    journal.write_bytes(b"".join(lines))
    with pytest.raises(UserError, match=r"study\.journal:3 is damaged, and complete lines follow"):
        StudyStorage.open(journal, space, cost_of)
    assert journal.read_bytes() == b"".join(lines)
