"""The process that writes a study to MLflow; `MLflowCallback` in the driver starts it and sends it messages.

    python -m kdsearch.tracking.mlflow.process HANDLE

`HANDLE` is the driver's end of a pipe: a `StudyHeader`, then any other `Message`. When the driver has gone, with
`Close` or without, everything received is still sent, and only then may the process of the next driver write.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from kdsearch.tracking.mlflow.messages import Close, Closed, Message, StudyHeader, Waiting
from kdsearch.tracking.mlflow.writer import MLflowWriter


def main(handle: int) -> None:
    """Receive messages until `Close` or until the driver has gone, and send them to MLflow."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # no lines on the tables of a new database
    with Connection(handle) as pipe:
        header: StudyHeader = pipe.recv()
        writer = MLflowWriter(header)
        writer.begin()
        message: Message
        try:
            while not isinstance(message := pipe.recv(), Close):
                writer.receive(message)
        except (EOFError, OSError):
            pass  # the driver was killed, perhaps within a message: nobody reads a reply
        for waiting in writer.outbox.close():
            _reply(pipe, Waiting(waiting))
        _reply(pipe, Closed(writer.outbox.unsent))


def _reply(pipe: Connection, reply: Waiting | Closed) -> None:
    with suppress(OSError):  # the driver may have gone
        pipe.send(reply)


if __name__ == "__main__":
    main(int(sys.argv[1]))
