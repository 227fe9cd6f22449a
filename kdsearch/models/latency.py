"""How long a network takes for one image on a device."""

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
"""Runs that do not count: so many, fewer where they take longer than that together, one at the least."""
LEAST, MOST, SECONDS = 5, 200, 1.0
"""Runs that count: at least and at most so many, and in between for so long."""


def latency_ms(config: AnyNetwork, info: DatasetInfo, size: tuple[int, int], target: Target) -> float:
    """Median milliseconds from one normalised image of `size` to its logits, in fp32, in eval mode, as it is exported.

    On one CPU thread that is the time that the thread computes, which is its latency on a free core whatever else runs
    on the others; on several threads and on a GPU it is time by the clock, and wants a device with nothing else to do.
    The process must have been given the target's threads. Weights are random: they do not change the time.

    Raises `UserError` for a network that cannot be built, `RuntimeError` for one that does not run on the device.
    """
    device = torch.device(target.kind)
    network = build_network(without_weights(config), info).eval().to(device)
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
