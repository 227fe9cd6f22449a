"""Latency of a network for one image on a device."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import torch

from kdsearch.config.networks import AnyNetwork, without_weights
from kdsearch.config.target import Target
from kdsearch.data.info import DatasetInfo
from kdsearch.models.registry import build_network

WARM_UP, WARM_UP_S = 5, 0.5
"""Runs before the measurement: at least one, then up to this many or this many seconds."""
LEAST, MOST, SECONDS = 5, 200, 1.0
"""Measured runs: the least, the most, and the seconds after which no further one starts."""


def latency_ms(config: AnyNetwork, info: DatasetInfo, size: tuple[int, int], target: Target) -> float:
    """Median milliseconds from one normalised image of `size` to its logits, in fp32 and eval mode, as exported.

    On one CPU thread this is the thread's computing time, its latency on a free core whatever runs on the others. On
    several threads and on a GPU it is wall-clock time and requires an otherwise idle device. The process must be
    limited to the target's threads. Weights are random, since they do not affect the time.

    `UserError` for a network that cannot be built, `RuntimeError` for one that does not run on the device.
    """
    device = torch.device(target.kind)
    network = build_network(without_weights(config), info, size).eval().to(device)
    network.detail_taps = False
    image_bchw = torch.rand(1, info.channels, *size, device=device)
    clock = time.thread_time if target == Target("cpu") else time.perf_counter

    @torch.inference_mode()
    def run() -> float:
        started = clock()
        network(image_bchw)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock() - started

    warm_up = [run()]
    while len(warm_up) < WARM_UP and sum(warm_up) < WARM_UP_S:
        warm_up.append(run())
    times: list[float] = []
    while len(times) < LEAST or (len(times) < MOST and sum(times) < SECONDS):
        times.append(run())
    return 1000 * sorted(times)[len(times) // 2]


def device_name(target: Target) -> str:
    """The GPU, or the processor."""
    return torch.cuda.get_device_name() if target.kind == "cuda" else processor()


def processor() -> str:
    """The name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
