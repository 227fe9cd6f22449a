"""Times and sizes as text."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A time in the most readable unit, with two digits."""
    for limit, unit, length in ((1, "ms", 1e-3), (90, "s", 1), (5400, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{two_digits(seconds / length)} {unit}"
    return f"{two_digits(seconds / 86400)} days"


def size(count: float) -> str:
    """Bytes in the most readable unit, with two digits."""
    for limit, unit, length in ((1e9, "MB", 1e6), (1e12, "GB", 1e9)):
        if count < limit:
            return f"{two_digits(count / length)} {unit}"
    return f"{two_digits(count / 1e12)} TB"


def two_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 20 else f"{value:.2g}"
