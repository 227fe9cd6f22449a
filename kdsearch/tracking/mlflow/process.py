"""The process that writes a study to MLflow; `MLflowCallback` in the driver starts it and sends it messages.

    python -m kdsearch.tracking.mlflow.process HANDLE

`HANDLE` is the driver's end of a pipe: a `StudyHeader`, which is answered by `Opened` once the study is in MLflow, then
any other `Message`. After the end of the driver, with `Close` or without, every received message is still sent, and
only then may the process of the next driver write.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from multiprocessing.connection import Connection

from kdsearch.errors import UserError
from kdsearch.tracking.mlflow.messages import Close, Closed, Message, Opened, Refused, Reply, StudyHeader, Waiting
from kdsearch.tracking.mlflow.problems import reason_of
from kdsearch.tracking.mlflow.writer import MLflowWriter


def main(handle: int) -> None:
    """Receive messages until `Close` or until the driver has gone, and send them to MLflow."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # no lines on the tables of a new database
    with Connection(handle) as pipe:
        driver = _Driver(pipe)
        header: StudyHeader = pipe.recv()
        writer = MLflowWriter(header, lambda reason: driver.reply(Refused(reason)))
        problem = _open(writer)
        driver.reply(Opened(problem))
        if problem:
            return
        message: Message
        try:
            while not isinstance(message := pipe.recv(), Close):
                writer.receive(message)
            if message.withdraw:
                writer.withdraw()
        except (EOFError, OSError):
            pass  # the driver was killed, perhaps within a message: nobody reads a reply
        for waiting in writer.outbox.close():
            driver.reply(Waiting(waiting))
        driver.reply(Closed(writer.outbox.losses))


def _open(writer: MLflowWriter) -> str:
    """Open the study; the sentence why that is not possible, else empty."""
    try:
        writer.open()
    except UserError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  the driver reports it
        traceback.print_exc()
        return f"The process that writes to MLflow failed ({reason_of(error)}); the lines above say where."
    return ""


class _Driver:
    """The driver's end of the pipe, to which two threads reply."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._lock = pipe, threading.Lock()

    def reply(self, reply: Reply) -> None:
        try:
            with self._lock:
                self._pipe.send(reply)
        except OSError:
            pass  # the driver has gone


if __name__ == "__main__":
    main(int(sys.argv[1]))
