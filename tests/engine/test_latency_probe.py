"""The probe's handling of processes that break, without Ray."""

from __future__ import annotations

from typing import Any

import pytest
from ray.exceptions import RayError

from kdsearch.engine import latency_probe
from kdsearch.engine.latency_probe import RayLatencyProbe


class Probe(RayLatencyProbe):
    """Each process gives the answers of its list, one per call; an exception is raised."""

    def __init__(self, *processes: list[Any]) -> None:
        self.processes = [iter(each) for each in processes]
        self.started = -1
        self._start()

    def _start(self) -> None:
        self.started += 1

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def time(self: Probe, *arguments: object) -> Any:
        answer = next(self.processes[self.started])
        return "its process ended" if isinstance(answer, Exception) else answer

    monkeypatch.setattr(RayLatencyProbe, "_time", time)


def measured(probe: Probe) -> Any:
    return probe.time("{}", None, (32, 64))  # type: ignore[arg-type]


def test_a_broken_process_is_no_verdict_on_the_networks_it_measures() -> None:
    probe = Probe([1.0, "CUDA error: an illegal memory access"], [2.0, 3.0])
    assert [measured(probe) for _ in range(3)] == [1.0, 2.0, 3.0]
    assert probe.started == 1


def test_a_network_that_fails_in_two_processes_is_at_fault_and_leaves_a_new_one() -> None:
    probe = Probe([RayError()], ["out of memory"], [2.0])
    assert measured(probe) == "out of memory"
    assert measured(probe) == 2.0
    assert latency_probe.RETRIES == 1
