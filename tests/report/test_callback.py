"""The pages in the run folder while a study runs and at its end."""

from __future__ import annotations

import pytest

from kdsearch.report import callback as callback_module
from kdsearch.report.callback import PagesCallback
from kdsearch.search.callbacks import CallbackList, StudyCallback, StudyEnd
from tests.tracking.made_up import MadeUp


def test_the_frontier_is_written_while_the_study_runs_and_the_report_at_its_end(study: MadeUp) -> None:
    folder = study.run.path
    pages = PagesCallback(study.run)
    pages.on_frontier([], 0.0)
    assert not (folder / "frontier.html").exists()
    pages.on_frontier(study.members, 0.7)
    assert (folder / "frontier.html").exists()
    assert (folder / "frontier.png").exists()
    assert not (folder / "report.html").exists()
    pages.on_study_end(StudyEnd("done", members=study.members))
    assert "4 trained to the end" in (folder / "report.html").read_text()


def test_writes_are_rare(study: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    now, written = [1000.0], []

    def write(run: object) -> None:
        written.append(now[0])
        now[0] += 3.0  # seconds that a write takes

    monkeypatch.setattr(callback_module, "write_frontier", write)
    monkeypatch.setattr(callback_module.time, "monotonic", lambda: now[0])
    pages = PagesCallback(study.run)
    for _ in range(400):
        pages.on_frontier(study.members, 0.7)
        now[0] += 1.0
    assert written == [1000.0, 1153.0, 1306.0], "3 s are 2 % of 150 s"


def test_a_page_that_cannot_be_written_costs_the_study_nothing(study: MadeUp) -> None:
    class Messages(StudyCallback):
        lines: list[str] = []  # noqa: RUF012

        def on_message(self, text: str) -> None:
            self.lines.append(text)

    (study.run.path / "frontier.html").mkdir()
    callbacks = CallbackList([PagesCallback(study.run), Messages()])
    callbacks.on_frontier(study.members, 0.7)
    callbacks.on_study_end(StudyEnd("done", members=study.members))
    assert "PagesCallback.on_frontier failed" in Messages.lines[0]
    assert "PagesCallback.on_study_end failed" in Messages.lines[1]
