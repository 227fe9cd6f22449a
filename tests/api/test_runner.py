"""What a study leaves behind when it cannot begin, and what it must never remove."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from kdsearch.api import runner as study
from kdsearch.api.interrupt import Interrupted, interruptible
from kdsearch.api.request import Request
from kdsearch.api.runner import run_study
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder


@pytest.mark.parametrize("began", [False, True])
@pytest.mark.parametrize("error", [UserError("no."), Interrupted()])
def test_only_a_run_folder_without_work_is_removed(
    began: bool, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stand_in(request: Request, run: RunFolder, space: object, training: threading.Event) -> int:
        (run.path / "study.journal").write_text("work")
        if began:
            training.set()
        raise error

    monkeypatch.setattr(study, "_run_study", stand_in)
    request = Request("clfd", profile="demo", storage=str(tmp_path), name="x")
    if isinstance(error, UserError):
        with pytest.raises(UserError):
            run_study(request)
        assert (tmp_path / "x").exists() is began
    else:
        assert run_study(request).status == 130
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
    def stand_in(*arguments: object) -> int:
        raise UserError("no.")

    monkeypatch.setattr(study, "_run_study", stand_in)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").write_text("years")
    with pytest.raises(UserError):
        run_study(Request("clfd", profile="demo", storage=str(tmp_path), name="x"))
    assert (tmp_path / "x" / "thesis.tex").exists()
