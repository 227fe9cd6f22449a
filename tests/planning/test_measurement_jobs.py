"""Measurements in a separate process that may hang or die."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kdsearch.planning import measurement_jobs as probe
from kdsearch.planning.measure import Measurement


def hang(pipe: object, store: Path, scratch: Path) -> None:
    pipe.send("ready")  # type: ignore[attr-defined]
    job = pipe.recv()  # type: ignore[attr-defined]
    pipe.send(("part", "the term cirkd"))  # type: ignore[attr-defined]
    if job.name == "dies":
        raise SystemExit(9)
    time.sleep(600 if job.name == "hangs" else 0)
    pipe.send(Measurement(2, 1.0, 1.0, 1.0))  # type: ignore[attr-defined]


@pytest.mark.slow
def test_what_takes_too_long_or_dies_is_said_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(probe, "_serve", hang)
    jobs = [probe.MeasurementJob(name, "", 2, 8) for name in ("hangs", "dies", "works")]
    results = [result for _, result in probe.run_jobs(jobs, tmp_path, tmp_path, 10.0, 300.0, lambda _: None)]
    assert results[0] == "the term cirkd did not end within 10 s, with 2 images"
    assert results[1] == "the term cirkd ended the process, probably by lack of memory"
    assert isinstance(results[2], Measurement)
    (late,) = (result for _, result in probe.run_jobs(jobs[:1], tmp_path, tmp_path, 1.0, -1.0, lambda _: None))
    assert late == "not measured: the time limit of all measurements is over"
