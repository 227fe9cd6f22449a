"""The end of a study sends all queued calls for as long as the server answers, and every call that is lost counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, PERMISSION_DENIED, RESOURCE_EXHAUSTED

from kdsearch.tracking.mlflow.outbox import ATTEMPTS, Outbox


def outbox(drain_s: float = 0.3, ping: Callable[[Any], object] = lambda client: None) -> tuple[Outbox, list[str]]:
    told: list[str] = []
    return Outbox(drain_s, ping, told.append), told


def make_all(calls: Outbox) -> list[int]:
    calls.begin(cast(Any, None))
    return list(calls.close())


def failing(error: Exception, times: int = 10_000) -> Callable[[Any], None]:
    left = [times]

    def call(client: Any) -> None:
        if left[0]:
            left[0] -= 1
            raise error

    return call


def away(client: Any) -> None:
    raise ConnectionError("nobody there")


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdsearch.tracking.mlflow.outbox.RETRY_S", 0.02)


def test_the_end_waits_for_a_server_that_answers_slowly() -> None:
    made: list[int] = []
    calls, _ = outbox()

    def call(number: int) -> None:
        time.sleep(0.1)
        made.append(number)

    for i in range(15):
        calls.put(lambda client, i=i: call(i))  # type: ignore[misc]
    waiting = make_all(calls)
    assert made == list(range(15)), "more than drain_s in all"
    assert (calls.losses.unsent, calls.losses.refused, calls.losses.calls) == (0, 0, 15)
    assert waiting == sorted(waiting, reverse=True)


def test_the_end_does_not_wait_for_a_server_that_is_away(capfd: Any) -> None:
    calls, _ = outbox(ping=away)
    for _ in range(5):
        calls.put(away)
    began = time.monotonic()
    make_all(calls)
    assert time.monotonic() - began < 6
    assert (calls.losses.unsent, calls.losses.refused, calls.losses.calls) == (5, 0, 5)
    assert calls.losses.reason == "ConnectionError: nobody there"
    assert "ConnectionError" in capfd.readouterr().err


def test_every_refused_call_counts_and_the_first_reason_is_kept() -> None:
    calls, told = outbox()
    for error in (MlflowException("no more", PERMISSION_DENIED), LookupError("t0001 has no run"), ValueError("odd")):
        calls.put(failing(error))
        calls.put(lambda client: None)
    make_all(calls)
    assert (calls.losses.refused, calls.losses.unsent, calls.losses.calls) == (3, 0, 6)
    assert calls.losses.reason == "no more"
    assert told == ["no more"], "at once, and once"


def test_a_store_of_artifacts_that_refuses_is_not_a_server_that_is_away() -> None:
    """`requests` raises an OSError for a status of 403."""
    answer = requests.Response()
    answer.status_code = 403
    calls, _ = outbox(drain_s=30)
    calls.put(failing(requests.HTTPError("403 Client Error", response=answer)))
    make_all(calls)
    assert (calls.losses.refused, calls.losses.unsent) == (1, 0)


def test_a_call_that_fails_while_others_succeed_does_not_hold_them_up() -> None:
    made: list[str] = []
    calls, _ = outbox(drain_s=30)
    calls.put(failing(MlflowException("a bug of the server", INTERNAL_ERROR)))
    calls.put(lambda client: made.append("next"))
    make_all(calls)
    assert made == ["next"]
    assert (calls.losses.refused, calls.losses.reason) == (1, "a bug of the server")


@pytest.mark.parametrize("code", [INTERNAL_ERROR, RESOURCE_EXHAUSTED])
def test_a_server_that_is_busy_gets_the_call_again(code: int) -> None:
    calls, _ = outbox(drain_s=30, ping=away)
    calls.put(failing(MlflowException("busy", code), times=ATTEMPTS + 3))
    make_all(calls)
    assert (calls.losses.refused, calls.losses.unsent, calls.losses.calls) == (0, 0, 1)
