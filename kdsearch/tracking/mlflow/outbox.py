"""The outbox: calls to MLflow, made by one thread in their order, so that a study never waits for a server."""

from __future__ import annotations

import math
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

DRAIN_S = 60.0
"""Seconds that the end of a study waits for a tracking server that does not answer."""

Call = Callable[["MlflowClient"], None]


class Outbox:
    """A queue of calls. While the server does not answer the first call is repeated, and the others stay queued.

    A call that MLflow refuses is logged and dropped. At the end all calls are made, however long that takes; a server
    that does not answer is waited for `drain_s` seconds.
    """

    def __init__(self, connect: Callable[[], MlflowClient], drain_s: float) -> None:
        self._connect, self._drain_s = connect, drain_s
        self._waiting: queue.Queue[Call | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._ending = threading.Event()
        self._deadline = math.inf
        self.unsent = 0
        """Calls that could not be made before the end."""

    def put(self, call: Call) -> None:
        self._waiting.put(call)

    def begin(self) -> None:
        """Start the thread that makes the calls."""
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
                self.unsent += self._waiting.qsize()
                return
            yield self._waiting.qsize()

    def wait_until(self, moment: float) -> None:
        """In a call: wait until that time of `time.monotonic()`, or until `close`."""
        self._ending.wait(moment - time.monotonic())

    def _work(self) -> None:
        client: MlflowClient | None = None
        while (call := self._waiting.get()) is not None:
            while True:
                if self.unsent and self._too_late():
                    self.unsent += 1  # the server did not answer the calls before either
                    break
                try:
                    client = client or self._connect()
                    call(client)
                    if self._ending.is_set():
                        self._deadline = time.monotonic() + self._drain_s
                    break
                except Exception as error:  # noqa: BLE001  tracking must never end a study; it is logged and retried
                    traceback.print_exc()
                    if not _may_pass(error):
                        break
                    if self._too_late():
                        self.unsent += 1
                        break
                    time.sleep(2)

    def _too_late(self) -> bool:
        return time.monotonic() > self._deadline


def _may_pass(error: Exception) -> bool:
    """Whether the same call may succeed later: the server is away or busy. A refused value is refused again."""
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return isinstance(error, OSError)
    return error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
