"""The end that a user asks for: SIGINT and SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM. Not an `Exception`, so that nothing on the way up takes it for a failed trial."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into `Interrupted`; a second one ends the process at once.

    Raised inside Ray's compiled code it may come out as something else, a `SystemError` say; so whatever comes out
    after the signal counts as the interruption.
    """
    received = False

    def interrupt(number: int, frame: Any) -> None:
        nonlocal received
        received = True
        for name, handler in before.items():
            signal.signal(name, handler)
        raise Interrupted

    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    for name in before:
        signal.signal(name, interrupt)
    try:
        yield
    except BaseException as error:
        if received and not isinstance(error, Interrupted):
            raise Interrupted from error
        raise
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
