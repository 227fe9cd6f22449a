"""The interruption of a study by its user: SIGINT and SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM. Not an `Exception`, so that no caller takes it for a failed trial."""


@contextmanager
def interruptible(first: Callable[[], None] | None = None) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into `Interrupted`; a second one has the handler from before.

    With `first`, that is called instead, and the code inside ends in its own way.

    Outside the main thread Python has no signal handlers, so nothing is changed there. An exception raised inside Ray's
    compiled code may come out as another one, such as `SystemError`; any exception after the signal counts as the
    interruption.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = False

    def interrupt(number: int, frame: Any) -> None:
        nonlocal received
        received = True
        for name, handler in before.items():
            signal.signal(name, handler)
        if first is None:
            raise Interrupted
        first()

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
