"""The process that measures trials; `run_jobs` starts it and kills it.

    python -m kdsearch.planning.process HANDLE

`HANDLE` is its end of a pipe. It receives the folders of the store and of temporary files, then each `MeasurementJob`.
It sends "ready" after its imports, then per job any number of ("part", name) and `Measurement` or ("failed", reason).
"""

from __future__ import annotations

import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from kdsearch.compat import ensure_torchvision
from kdsearch.config.trial import TrialConfig
from kdsearch.errors import UserError

if TYPE_CHECKING:
    from kdsearch.planning.measurement_jobs import MeasurementJob


def main(handle: int) -> None:
    """Measure each job from the pipe, until the process is killed or the other end closes."""
    ensure_torchvision()
    import torch

    from kdsearch.planning.measure import measure
    from kdsearch.train.memory import TrialError

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    with Connection(handle) as pipe, suppress(EOFError):
        store, scratch = pipe.recv()
        pipe.send("ready")
        while True:
            job: MeasurementJob = pipe.recv()
            try:
                config = TrialConfig.model_validate_json(job.config)
                reply = measure(
                    config, store, scratch, job.images, job.batch, device,
                    lambda part: pipe.send(("part", part)),
                )  # fmt: skip
            except (UserError, TrialError, RuntimeError, ValueError) as error:
                pipe.send(("failed", f"{type(error).__name__}: {error}"))
            else:
                pipe.send(reply)


if __name__ == "__main__":
    main(int(sys.argv[1]))
