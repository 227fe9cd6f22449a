"""Measuring networks on the target device: in a process of its own on a node of the cluster that has it."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kdsearch.config.target import Target
from kdsearch.data.info import DatasetInfo
from kdsearch.errors import UserError

LIMIT_S = 900.0
"""Seconds that one round of one network may take."""

RETRIES = 1
"""New processes in which a network that failed is measured again."""


class _Worker:
    """What runs there. Nothing else trains meanwhile: the study measures before its first trial."""

    def __init__(self, target: str) -> None:
        from kdsearch.compat import ensure_torchvision

        ensure_torchvision()
        import torch

        self.target: Target = Target.parse(target)
        torch.set_num_threads(self.target.threads)

    def about(self) -> tuple[str, str]:
        import torch

        from kdsearch.models.latency import device_name

        return device_name(self.target), torch.__version__

    def time(self, network: str, info: DatasetInfo, size: tuple[int, int]) -> float | str:
        from pydantic import TypeAdapter

        from kdsearch.config.networks import NetworkConfig
        from kdsearch.models.latency import latency_ms

        try:
            return latency_ms(TypeAdapter(NetworkConfig).validate_json(network), info, size, self.target)
        except (UserError, RuntimeError, AssertionError) as error:
            return " ".join(str(error).split())[:300]


class RayLatencyProbe:
    """A `LatencyProbe` on the cluster. Use it as a context, or call `close`: it holds the device meanwhile."""

    def __init__(self, target: Target, device: str | None, start_s: float) -> None:
        """On the device called `device`, on the first that fits where that is None; the driver's node comes first.

        Raises `UserError` where the cluster has none, or none is free within `start_s` seconds.
        """
        self._target, self._start_s = target, start_s
        seen = []
        for self._node in _nodes_with(target):
            self._start()
            self.device, self.torch = self._about()
            if device in (None, self.device):
                return
            seen.append(self.device)
            self.close()
        raise UserError(
            f"The latencies of this study are from {device}, and the cluster has only {', '.join(seen)}: go on where "
            "it began, or start a new study with --warm-start."
        )

    def __enter__(self) -> RayLatencyProbe:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def time(self, network: str, info: DatasetInfo, size: tuple[int, int]) -> float | str:
        """A failure is the network's own once it has happened in two processes: the first may have been broken."""
        answer = self._time(network, info, size)
        for _ in range(RETRIES):
            if isinstance(answer, str):
                self.close()
                self._start()
                answer = self._time(network, info, size)
        if isinstance(answer, str):
            self.close()
            self._start()
        return answer

    def _time(self, network: str, info: DatasetInfo, size: tuple[int, int]) -> float | str:
        try:
            answer: float | str = ray.get(self._worker.time.remote(network, info, size), timeout=LIMIT_S)
            return answer
        except GetTimeoutError:
            return f"it took more than {LIMIT_S:g} s"
        except RayError:
            return "its process ended, probably for want of memory"

    def close(self) -> None:
        ray.kill(self._worker)

    def _start(self) -> None:
        here = NodeAffinitySchedulingStrategy(self._node, soft=False)
        gpus = 1 if self._target.kind == "cuda" else 0
        options = {"num_cpus": self._target.threads, "num_gpus": gpus, "scheduling_strategy": here}
        self._worker: Any = ray.remote(_Worker).options(**options).remote(str(self._target))

    def _about(self) -> tuple[str, str]:
        try:
            about: tuple[str, str] = ray.get(self._worker.about.remote(), timeout=self._start_s)
            return about
        except RayError as error:
            self.close()
            if isinstance(error, GetTimeoutError):
                reason = f"no {self._target} was free within {self._start_s:g} s (search.start_timeout)"
            else:
                reason = str(error).strip().splitlines()[-1]
            raise UserError(f"Latency on {self._target} cannot be measured: {reason}.") from error


def _nodes_with(target: Target) -> list[str]:
    """Ids of living nodes that have the device, this one first. Raises `UserError` where there is none."""
    resource, least = ("GPU", 1) if target.kind == "cuda" else ("CPU", target.threads)
    here = ray.get_runtime_context().get_node_id()
    found = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get(resource, 0) >= least]
    if found:
        return sorted(found, key=lambda node: node != here)
    if target.kind == "cuda":
        raise UserError(
            "search.latency is cuda, but no node of the cluster has a GPU: start one, or measure with --latency cpu."
        )
    raise UserError(
        f"search.latency is {target}, but no node of the cluster has {least} CPU cores: name fewer threads."
    )
