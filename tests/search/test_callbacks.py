"""Delivery of events to callbacks: their order, exceptions, and critical callbacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.search.callbacks import CallbackList, StudyCallback, StudyInfo
from kdsearch.search.trial_record import TrialRecord
from kdsearch.testing.callbacks import CallbackConformance, Make, drive
from kdsearch.testing.toy_study import toy_space


class Log(StudyCallback):
    """The names of events and ids of trials, and the messages."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.messages: list[str] = []

    def on_study_start(self, study: StudyInfo) -> None:
        self.events.append("study")

    def on_message(self, text: str) -> None:
        self.messages.append(text)

    def on_trial_start(self, trial: TrialRecord) -> None:
        self.events.append(f"start {trial.id}")

    def on_trial_end(self, trial: TrialRecord) -> None:
        self.events.append(f"end {trial.id} {trial.state}")


class Failing(StudyCallback):
    def on_trial_start(self, trial: TrialRecord) -> None:
        raise RuntimeError("made to fail")


class Critical(Failing):
    critical = True


class TestConformance(CallbackConformance):
    @pytest.fixture(params=[StudyCallback, Log], ids=lambda kind: kind.__name__)
    def make(self, request: pytest.FixtureRequest) -> Make:
        kind: type[StudyCallback] = request.param
        return lambda study: kind()


@pytest.fixture
def study(tmp_path: Path) -> StudyInfo:
    return StudyInfo("toy", tmp_path, toy_space(trials=2))


def test_an_exception_is_reported_once_and_costs_nothing(study: StudyInfo, capsys: pytest.CaptureFixture[str]) -> None:
    alone, beside = Log(), Log()
    (study.path / "alone").mkdir()
    drive(alone, StudyInfo("toy", study.path / "alone", study.space))
    drive(CallbackList([Failing(), beside]), study)
    assert beside.events == alone.events
    failures = [text for text in beside.messages if "failed" in text]
    assert failures == ["callback Failing.on_trial_start failed (RuntimeError: made to fail); the study continues"]
    assert capsys.readouterr().err.count("RuntimeError: made to fail") == 1


def test_a_critical_exception_ends_the_study(study: StudyInfo) -> None:
    with pytest.raises(RuntimeError, match="made to fail"):
        drive(CallbackList([Log(), Critical()]), study)


def test_a_callback_that_joins_later_receives_the_start(study: StudyInfo) -> None:
    callbacks, log = CallbackList([Log()]), Log()
    callbacks.on_study_start(study)
    callbacks.insert(0, log, study)
    assert log.events == ["study"]
    assert callbacks.callbacks[0] is log
