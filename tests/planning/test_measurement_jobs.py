"""Measurements in a separate process that may hang or die."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.planning import measurement_jobs as probe
from kdsearch.planning.measure import Measurement


@pytest.mark.slow
def test_what_takes_too_long_or_dies_is_said_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(probe, "PROCESS", "tests.planning.measurement_stand_in")
    jobs = [probe.MeasurementJob(name, "", 2, 8) for name in ("hangs", "dies", "works")]
    results = [result for _, result in probe.run_jobs(jobs, tmp_path, tmp_path, 10.0, 300.0, lambda _: None)]
    assert results[0] == "the term cirkd did not end within 10 s, with 2 images"
    assert results[1] == "the term cirkd ended the process, probably by lack of memory"
    assert isinstance(results[2], Measurement)
    (late,) = (result for _, result in probe.run_jobs(jobs[:1], tmp_path, tmp_path, 1.0, -1.0, lambda _: None))
    assert late == "not measured: the time limit of all measurements is over"
