"""The time of one image on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from kdsearch.models.latency import processor
from kdsearch.models.onnx_session import Run

ROUNDS, WARM_UP, SECONDS, MOST = 3, 2, 3.0, 100
"""Rounds over the formats; uncounted runs per round; seconds of all rounds together; most runs per round."""


def latencies_ms(runs: Mapping[str, Run], image_bchw: NDArray[np.float32]) -> dict[str, float]:
    """Median milliseconds of each of `runs` on one image, in its fastest round, since other load only adds time.

    Each format has the machine to itself for a part of a round: idle threads of onnxruntime spin, which would slow
    down PyTorch if the two alternated.
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
    """The processor, and the number of threads used."""
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' * (threads > 1)}"
