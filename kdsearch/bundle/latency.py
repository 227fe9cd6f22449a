"""How long one image takes on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from kdsearch.bundle.formats import Run
from kdsearch.models.latency import processor

WARM_UP, SECONDS, MOST = 3, 3.0, 100
"""Runs that do not count; seconds that all formats take together; most runs of each."""


def latencies_ms(runs: Mapping[str, Run], image_bchw: NDArray[np.float32]) -> dict[str, float]:
    """Median milliseconds of each of `runs` on one image, measured in turns, so that other load falls on all alike."""
    for run in runs.values():
        for _ in range(WARM_UP):
            run(image_bchw)
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.monotonic() + SECONDS
    for count in range(MOST):
        if count and time.monotonic() > end:
            break
        for name, run in runs.items():
            started = time.perf_counter()
            run(image_bchw)
            times[name].append(time.perf_counter() - started)
    return {name: 1000 * float(np.median(each)) for name, each in times.items()}


def machine() -> str:
    """The processor that the latencies are of, and how many of its threads were used."""
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' * (threads > 1)}"
