"""What a study says of latency: the `latency` of its summary, in words and numbers for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdsearch.errors import UserError

AXIS = {
    "gflops": "GFLOPs an image (2 x MAC)",
    "params_m": "million parameters",
    "latency_ms": "latency of an image, ms",
}
"""Titles of the axes that costs are drawn on."""
UNIT = {"gflops": "GFLOPs", "params_m": "M parameters", "latency_ms": "ms"}


@dataclass(frozen=True)
class Measured:
    """A student of the space; `spread`: how far its rounds lay apart, as a share of the quickest."""

    student: str
    gflops: float
    params_m: float
    latency_ms: float
    spread: float


@dataclass(frozen=True)
class LatencyReport:
    """Students by latency, and its rank correlation with FLOPs over them: None where that is not defined."""

    target: str
    device: str
    torch: str
    size: tuple[int, int]
    spearman: float | None
    kendall: float | None
    students: tuple[Measured, ...]

    @property
    def threads(self) -> str:
        """On how much of the device, in words."""
        threads = self.target.partition(":")[2]
        return "" if self.target == "cuda" else f", {threads or 'one'} thread{'s' * bool(threads)}"

    @property
    def spread(self) -> float:
        """The largest of any student."""
        return max((each.spread for each in self.students), default=0.0)

    def line(self) -> str:
        """One line for a terminal."""
        if not self.students:
            return f"latency on {self.device}: no student of the space runs there"
        text = f"latency on {self.device}{self.threads}: {self.students[0].latency_ms:.3g}"
        if len(self.students) > 1:
            text += f" to {self.students[-1].latency_ms:.3g}"
        text += f" ms for {len(self.students)} students; rounds of one differ by up to {self.spread:.0%}"
        if self.spearman is not None:
            text += f"; rank correlation with FLOPs {self.spearman:.2f}"
        return text

    def sentences(self) -> str:
        """What the numbers are, and what they say of FLOPs as a stand-in for them."""
        height, width = self.size
        text = (
            f"Each student was measured before training, on {self.device}{self.threads}: one image of "
            f"{height}x{width}, fp32, torch {self.torch}, the median of the quickest of three rounds. Rounds of one "
            f"student lay apart by up to {self.spread:.0%}."
        )
        if self.spearman is None or self.kendall is None:
            return text + " A rank correlation with FLOPs wants three students that differ."
        return text + (
            f" Over these {len(self.students)} students, the rank correlation between latency and FLOPs is "
            f"{self.spearman:.2f} (Spearman) and {self.kendall:.2f} (Kendall): {_verdict(self.spearman)}."
        )


def latency_report(summary: Mapping[str, Any]) -> LatencyReport | None:
    """What a summary says of latency; None where it says nothing. Raises `UserError` for what no study writes."""
    about = summary.get("latency")
    if about is None:
        return None
    try:
        height, width = about["size"]
        students = tuple(
            Measured(str(row["student"]), *(float(row[name]) for name in list(Measured.__annotations__)[1:]))
            for row in about["students"]
        )
        return LatencyReport(
            str(about["target"]), str(about["device"]), str(about["torch"]), (int(height), int(width)),
            _number(about["spearman"]), _number(about["kendall"]), students,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"summary.json says of latency what no study writes ({type(error).__name__}: {error})."
        ) from error


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _verdict(spearman: float) -> str:
    if spearman > 0.9:
        return "FLOPs order these students nearly as this device does"
    if spearman > 0.5:
        return "FLOPs are a rough stand-in for this device's time"
    return "FLOPs say little of this device's time"
