"""The end of a study sends all queued calls for as long as the server answers, and no longer."""

from __future__ import annotations

import time
from typing import Any, cast

from kdsearch.tracking.mlflow.outbox import Outbox


def test_the_end_waits_for_a_server_that_answers_slowly() -> None:
    made: list[int] = []
    calls = Outbox(lambda: cast(Any, None), drain_s=0.3)

    def call(number: int) -> None:
        time.sleep(0.1)
        made.append(number)

    for i in range(15):
        calls.put(lambda client, i=i: call(i))  # type: ignore[misc]
    calls.begin()
    waiting = list(calls.close())
    assert made == list(range(15)), "more than drain_s in all"
    assert calls.unsent == 0
    assert waiting == sorted(waiting, reverse=True)


def test_the_end_does_not_wait_for_a_server_that_is_away(capfd: Any) -> None:
    calls = Outbox(lambda: cast(Any, None), drain_s=0.3)

    def away(client: Any) -> None:
        raise ConnectionError

    for _ in range(5):
        calls.put(away)
    calls.begin()
    began = time.monotonic()
    list(calls.close())
    assert time.monotonic() - began < 6
    assert calls.unsent == 5
    assert "ConnectionError" in capfd.readouterr().err
