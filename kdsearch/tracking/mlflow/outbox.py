"""The outbox: calls to MLflow, made by one thread in their order, so that a study never waits for a server."""

from __future__ import annotations

import math
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdsearch.tracking.mlflow.problems import may_pass, reason_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

DRAIN_S = 60.0
"""Seconds that the end of a study waits for a tracking server that does not answer."""
ATTEMPTS = 5
"""Attempts after which a call is refused that fails while the server answers another."""
RETRY_S = 2.0

Call = Callable[["MlflowClient"], object]


@dataclass
class Losses:
    """Calls that MLflow does not have: refused ones, and those that it did not answer before the end.

    `reason` is that of the first refusal, else of the first call that was not answered.
    """

    calls: int = 0
    """All calls that are over."""
    refused: int = 0
    unsent: int = 0
    reason: str = ""


class Outbox:
    """A queue of calls. While the server does not answer the first call is repeated, and the others stay queued.

    A call that MLflow refuses is logged, counted and dropped: the first with `on_refusal`. So is one that fails again
    and again while `ping` passes: others must not wait for it. At the end all calls are made, however long that takes;
    a server that does not answer is waited for `drain_s` seconds.
    """

    def __init__(self, drain_s: float, ping: Call, on_refusal: Callable[[str], None]) -> None:
        self._drain_s, self._ping, self._on_refusal = drain_s, ping, on_refusal
        self._waiting: queue.Queue[Call | None] = queue.Queue()
        self._ending = threading.Event()
        self._deadline = math.inf
        self.losses = Losses()

    def put(self, call: Call) -> None:
        self._waiting.put(call)

    def begin(self, client: MlflowClient) -> None:
        """Start the thread that makes the calls."""
        self._thread = threading.Thread(target=self._work, args=[client], daemon=True)
        self._thread.start()

    def close(self) -> Iterator[int]:
        """Make all queued calls. Yields once per second the number of calls still queued."""
        self._deadline = time.monotonic() + self._drain_s
        self._ending.set()
        self._waiting.put(None)
        while self._thread.is_alive():
            self._thread.join(1.0)
            if time.monotonic() > self._deadline + 10:
                # A call in hand waits for its server longer than that; the thread ends with the process.
                self.losses.unsent += self._waiting.qsize()  # with the end mark in place of the call in hand
                self.losses.reason = self.losses.reason or "a call was not answered"
                return
            yield self._waiting.qsize()

    def wait_until(self, moment: float) -> None:
        """In a call: wait until that time of `time.monotonic()`, or until `close`."""
        self._ending.wait(moment - time.monotonic())

    def _work(self, client: MlflowClient) -> None:
        while (call := self._waiting.get()) is not None:
            # After the end, the first call that the server did not answer speaks for those behind it.
            if not (self.losses.unsent and self._too_late()):
                self._make(call, client)
            else:
                self.losses.unsent += 1
            self.losses.calls += 1

    def _make(self, call: Call, client: MlflowClient) -> None:
        """Make one call, until it succeeds, is refused, or the end does not wait for it any longer."""
        attempts = 0
        while True:
            try:
                call(client)
                if self._ending.is_set():
                    self._deadline = time.monotonic() + self._drain_s
                return
            except Exception as error:  # noqa: BLE001  tracking must never end a study; it is logged and counted
                traceback.print_exc()
                attempts += 1
                if not may_pass(error) or (attempts >= ATTEMPTS and self._answers(client)):
                    self._refused(error)
                    return
                if self._too_late():
                    self.losses.unsent += 1
                    self.losses.reason = self.losses.reason or reason_of(error)
                    return
                time.sleep(RETRY_S)

    def _answers(self, client: MlflowClient) -> bool:
        try:
            self._ping(client)
        except Exception:  # noqa: BLE001  the server is away, for whatever reason
            return False
        return True

    def _refused(self, error: Exception) -> None:
        self.losses.refused += 1
        if self.losses.refused == 1:
            self.losses.reason = reason_of(error)
            self._on_refusal(self.losses.reason)

    def _too_late(self) -> bool:
        return time.monotonic() > self._deadline
