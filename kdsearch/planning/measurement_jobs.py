"""Measurements in a separate process, which is killed when one takes too long and replaced when it dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from kdsearch.io.child_process import start_module
from kdsearch.planning.measure import Measurement

PROCESS = "kdsearch.planning.process"
"""The module that measures."""


@dataclass(frozen=True)
class MeasurementJob:
    """One trial to measure with `images` per step, where the study has `batch`, on one CPU thread."""

    name: str
    config: str
    images: int
    batch: int


def run_jobs(
    jobs: list[MeasurementJob], store: Path, scratch: Path, limit_s: float, total_s: float, say: Callable[[str], None]
) -> Iterator[tuple[MeasurementJob, Measurement | str]]:
    """Each job with its measurement, or with the reason why there is none.

    A job may take `limit_s`; after `total_s` no further one starts. `say` receives the name of each.
    """
    process, pipe = None, None
    end = time.monotonic() + total_s
    try:
        for job in jobs:
            if time.monotonic() > end:
                yield job, "not measured: the time limit of all measurements is over"
                continue
            if process is None or process.poll() is not None:
                process, pipe = start_module(PROCESS)
                pipe.send((store, scratch))
                pipe.recv()  # its imports do not count
            assert pipe is not None
            pipe.send(job)
            say(job.name)
            result = _result(pipe, job, limit_s)
            if isinstance(result, str):
                process.kill()
                process.wait()
            yield job, result
    finally:
        if process is not None:
            process.kill()
            process.wait()


def _result(pipe: Connection, job: MeasurementJob, limit_s: float) -> Measurement | str:
    part, started = "its start", time.monotonic()
    while pipe.poll(max(0.0, started + limit_s - time.monotonic())):
        try:
            message = pipe.recv()
        except EOFError:
            return f"{part} ended the process, probably by lack of memory"
        if isinstance(message, Measurement):
            return message
        kind, text = message
        if kind == "failed":
            return str(text)
        part = text
    return f"{part} did not end within {limit_s:.0f} s, with {job.images} images"
