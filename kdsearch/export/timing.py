"""How long one image takes on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from kdsearch.export.formats import Run
from kdsearch.models.latency import processor

ROUNDS, WARM_UP, SECONDS, MOST = 3, 2, 3.0, 100
"""Rounds over the formats; runs of each that do not count; seconds that all take together; most runs of a round."""


def latencies_ms(runs: Mapping[str, Run], image_bchw: NDArray[np.float32]) -> dict[str, float]:
    """Median milliseconds of each of `runs` on one image, in the quickest of some rounds: other load only adds.

    A format is measured some time without the others between: threads of onnxruntime wait for more by computing, and
    would slow down the next run of PyTorch.
    """
    medians: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            for _ in range(WARM_UP):
                run(image_bchw)
            times: list[float] = []
            end = time.monotonic() + SECONDS / ROUNDS / len(runs)
            while not times or (len(times) < MOST and time.monotonic() < end):
                started = time.perf_counter()
                run(image_bchw)
                times.append(time.perf_counter() - started)
            medians[name].append(1000 * float(np.median(times)))
    return {name: min(each) for name, each in medians.items()}


def machine() -> str:
    """The processor that the latencies are of, and how many of its threads were used."""
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' * (threads > 1)}"
