"""A process in place of `kdsearch.planning.process`, which hangs, dies or answers by the name of the job."""

from __future__ import annotations

import sys
import time
from multiprocessing.connection import Connection

from kdsearch.planning.measure import Measurement

if __name__ == "__main__":
    with Connection(int(sys.argv[1])) as pipe:
        pipe.recv()
        pipe.send("ready")
        job = pipe.recv()
        pipe.send(("part", "the term cirkd"))
        if job.name == "dies":
            raise SystemExit(9)
        time.sleep(600 if job.name == "hangs" else 0)
        pipe.send(Measurement(2, 1.0, 1.0, 1.0))
