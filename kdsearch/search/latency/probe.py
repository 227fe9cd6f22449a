"""The probe that measures the latency of networks; `engine/latency_probe.py` runs one on the cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kdsearch.data.info import DatasetInfo


class LatencyProbe(Protocol):
    """Measures networks on one device: `device` is its name, `torch` the version of PyTorch."""

    device: str
    torch: str

    def time(self, network: str, info: DatasetInfo, size: tuple[int, int]) -> float | str:
        """Milliseconds per image of `size` for the network of a `network_key`; or the reason for a failure."""
        ...


OpenProbe = Callable[[str | None], LatencyProbe]
"""Opens a probe on the device of that name; on any device that fits the target if the name is None."""
