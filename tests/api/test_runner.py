"""What a study leaves behind when it cannot begin, and what it must never remove."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdsearch.api.interrupt import Interrupted, interruptible
from kdsearch.api.request import StudyRequest
from kdsearch.api.runner import StudyRunner
from kdsearch.api.space import Space
from kdsearch.errors import UserError
from kdsearch.search.callbacks import StudyEnd


@pytest.mark.parametrize("began", [False, True])
@pytest.mark.parametrize("error", [UserError("no."), Interrupted()])
def test_only_a_run_folder_without_work_is_removed(
    began: bool, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stand_in(self: StudyRunner, stack: object) -> StudyEnd:
        (self.run.path / "study.journal").write_text("work")
        if began:
            self.started.set()
        raise error

    monkeypatch.setattr(StudyRunner, "_execute", stand_in)
    request = StudyRequest(Space("clfd", profile="demo"), storage=str(tmp_path), name="x")
    with pytest.raises(type(error)) as caught:
        StudyRunner(request).execute()
    if isinstance(error, UserError):
        assert (tmp_path / "x").exists() is began
    else:
        assert str(tmp_path / "x") in str(caught.value)
        assert (tmp_path / "x" / "study.journal").exists()


def test_an_interruption_that_comes_out_of_compiled_code_as_something_else_is_still_one() -> None:
    def compiled() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            raise SystemError("returned a result with an exception set") from error

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted), interruptible():
        compiled()
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(SystemError), interruptible():
        raise SystemError("no signal came")


def test_a_folder_that_was_there_before_is_never_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(*arguments: object) -> StudyEnd:
        raise UserError("no.")

    monkeypatch.setattr(StudyRunner, "_execute", stand_in)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").write_text("years")
    with pytest.raises(UserError):
        StudyRunner(StudyRequest(Space("clfd", profile="demo"), storage=str(tmp_path), name="x")).execute()
    assert (tmp_path / "x" / "thesis.tex").exists()


def test_a_refused_study_takes_away_the_folders_that_it_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stand_in(self: StudyRunner, stack: object) -> StudyEnd:
        raise UserError("no.")

    monkeypatch.setattr(StudyRunner, "_execute", stand_in)
    for storage, before in ((tmp_path / "new", False), (tmp_path / "old", True)):
        if before:
            (storage / ".cache" / "data" / "store").mkdir(parents=True)
        with pytest.raises(UserError):
            StudyRunner(StudyRequest(Space("clfd", profile="demo"), storage=str(storage), name="x")).execute()
        assert storage.exists() is before
        assert (storage / ".cache" / "data" / "store").exists() is before


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (TimeoutError("Ray Tune hangs: no report of t0000 for 9000 s"), "go on once the cluster answers"),
        (OSError("t0000.pt could not be written to /runs"), "make room or mend it, then go on"),
    ],
)
def test_a_hang_is_not_taken_for_a_full_disk(
    error: OSError, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`TimeoutError` is a kind of `OSError`."""

    def run_trials(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("kdsearch.engine.tune.run_trials", run_trials)
    runner: Any = StudyRunner(StudyRequest(Space("clfd", profile="demo"), storage=str(tmp_path), name="x"))
    status, failure = runner._train(None, None, None, None, None)
    assert status == "failed"
    assert failure.startswith(f"{error}; ")
    assert failure.endswith(remedy)


def test_a_study_waits_for_the_teacher_that_another_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdsearch.api.runner.TEACHER_POLL_S", 0.01)
    request = StudyRequest(Space("clfd", profile="demo"), storage=str(tmp_path), name="x")

    def waits(runner: StudyRunner, claims: list[bool]) -> list[bool]:
        left = list(claims)
        runner.run.create()
        runner._teacher = SimpleNamespace(folder=tmp_path / "t", claim=lambda stack: left.pop(0))  # type: ignore[assignment]
        runner._await_teacher(ExitStack())
        return left

    runner = StudyRunner(request)
    assert waits(runner, [False, False, True, True]) == [True]
    assert runner.run.log.read_text().count("another study trains the same teacher") == 1
    late = StudyRunner(replace(request, time_limit=1e-9))
    assert waits(late, [False, True]) == [True], "after the time limit no trial starts anyway"
    stopped = StudyRunner(request)
    stopped.stop.set()
    with pytest.raises(Interrupted):
        waits(stopped, [False, True])
