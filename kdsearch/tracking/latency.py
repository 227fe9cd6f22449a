"""What a study says of latency: the summary's `latency`, in words and numbers for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def latency_line(about: Mapping[str, Any]) -> str:
    """One line for the terminal."""
    rows = about["students"]
    if not rows:
        return f"latency on {about['device']}: no student of the space runs there"
    text = f"latency on {about['device']} ({about['target']}): {rows[0]['latency_ms']:.3g}"
    if len(rows) > 1:
        text += f" to {rows[-1]['latency_ms']:.3g}"
    text += f" ms for {len(rows)} student{'s' * (len(rows) > 1)}, rounds differ by {_largest_spread(about):.0%} at most"
    if about["spearman"] is not None:
        text += f"; rank correlation with FLOPs {about['spearman']:.2f}"
    return text


def _largest_spread(about: Mapping[str, Any]) -> float:
    return max((float(row["spread"]) for row in about["students"]), default=0.0)
