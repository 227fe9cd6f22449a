"""The process that writes a study to MLflow; the driver's `MLflowCallback` starts it and sends it news.

    python -m kdsearch.tracking.mlflow.process HANDLE

`HANDLE` is the driver's pipe: a `StudyHeader`, then `News`. When the driver is gone, with a last word or without one, what
has come in is still sent, and only then may the process of the next driver write.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from kdsearch.tracking.mlflow.messages import News, StudyHeader
from kdsearch.tracking.mlflow.writer import MLflowWriter


def main(handle: int) -> None:
    """Hear a driver out and send what it says.

    The answers to its last word are how many calls have yet to be made, every second, and then a tuple of how many
    could not be.
    """
    with Connection(handle) as pipe:
        opening: StudyHeader = pipe.recv()
        runs = MLflowWriter(opening)
        runs.begin()
        news: News
        try:
            while (news := pipe.recv()) is not None:
                runs.hear(news)
        except (EOFError, OSError):
            pass  # the driver was killed, perhaps within a message: nobody waits for an answer
        for waiting in runs.calls.end():
            _answer(pipe, waiting)
        _answer(pipe, (runs.calls.unsent,))


def _answer(pipe: Connection, answer: int | tuple[int]) -> None:
    with suppress(OSError):  # the driver need not live any more
        pipe.send(answer)


if __name__ == "__main__":
    main(int(sys.argv[1]))
