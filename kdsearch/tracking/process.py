"""The process that writes a study to MLflow; the driver's `Tracker` starts it and sends it news.

    python -m kdsearch.tracking.process HANDLE

`HANDLE` is the driver's pipe: an `Opening`, then `News`. When the driver is gone, with a last word or without one, what
has come in is still sent, and only then may the process of the next driver write.
"""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from kdsearch.tracking.mlflow import Runs
from kdsearch.tracking.news import News, Opening


def main(handle: int) -> None:
    """Hear a driver out and send what it says; the answer to its last word is how many calls could not be made."""
    with Connection(handle) as pipe:
        opening: Opening = pipe.recv()
        runs = Runs(opening)
        runs.begin()
        news: News
        try:
            while (news := pipe.recv()) is not None:
                runs.hear(news)
        except EOFError:
            runs.calls.end()  # the driver was killed: nobody waits for an answer
        else:
            pipe.send(runs.calls.end())


if __name__ == "__main__":
    main(int(sys.argv[1]))
