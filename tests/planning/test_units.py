"""Times and sizes as text."""

from __future__ import annotations

from kdsearch.planning.units import duration, size


def test_times_and_sizes_read_well() -> None:
    assert [duration(s) for s in (0.0042, 1.5, 80, 600, 3 * 3600, 3 * 86400)] == [
        "4.2 ms", "1.5 s", "80 s", "10 min", "3 h", "3 days",
    ]  # fmt: skip
    assert [size(n) for n in (5e5, 2.2e7, 3.1e9, 2e12)] == ["0.5 MB", "22 MB", "3.1 GB", "2 TB"]
