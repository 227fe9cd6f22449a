"""The latencies that a study measured before training, in words and numbers: `latency` of its summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdsearch.errors import UserError


@dataclass(frozen=True)
class StudentLatency:
    """One student of the space. `spread` is the range of its rounds, as a share of the quickest."""

    student: str
    gflops: float
    params_m: float
    latency_ms: float
    spread: float


@dataclass(frozen=True)
class LatencyReport:
    """Students in order of latency, and the rank correlation with FLOPs over them, None where it is not defined."""

    target: str
    device: str
    torch: str
    size: tuple[int, int]
    spearman: float | None
    kendall: float | None
    students: tuple[StudentLatency, ...]

    @property
    def threads(self) -> str:
        """The number of CPU threads, in words that follow the device."""
        threads = self.target.partition(":")[2]
        return "" if self.target == "cuda" else f", {threads or 'one'} thread{'s' * bool(threads)}"

    @property
    def spread(self) -> float:
        """The largest spread of any student."""
        return max((each.spread for each in self.students), default=0.0)

    def line(self) -> str:
        """One line for a terminal."""
        if not self.students:
            return f"latency on {self.device}: no student of the space runs on it"
        text = f"latency on {self.device}{self.threads}: {self.students[0].latency_ms:.3g}"
        if len(self.students) > 1:
            text += f" to {self.students[-1].latency_ms:.3g}"
        text += f" ms for {len(self.students)} students; rounds of one differ by up to {self.spread:.0%}"
        if self.spearman is not None:
            text += f"; rank correlation with FLOPs {self.spearman:.2f}"
        return text

    def sentences(self) -> str:
        """How the latencies were measured, and how well FLOPs predict their order."""
        height, width = self.size
        text = (
            f"Each student was measured before training, on {self.device}{self.threads}: one image of "
            f"{height}x{width}, fp32, torch {self.torch}, the median of the quickest of three rounds. Rounds of one "
            f"student differ by up to {self.spread:.0%}."
        )
        if self.spearman is None or self.kendall is None:
            return text + " A rank correlation with FLOPs needs three students that differ."
        return text + (
            f" Over these {len(self.students)} students, the rank correlation between latency and FLOPs is "
            f"{self.spearman:.2f} (Spearman) and {self.kendall:.2f} (Kendall): {_verdict(self.spearman)}."
        )


def latency_report(about: Mapping[str, Any] | None) -> LatencyReport | None:
    """The report of `StudySummary.latency`, None for None. Raises `UserError` for values of another program."""
    if about is None:
        return None
    try:
        height, width = about["size"]
        students = tuple(
            StudentLatency(
                str(row["student"]), *(float(row[name]) for name in list(StudentLatency.__annotations__)[1:])
            )
            for row in about["students"]
        )  # fmt: skip
        return LatencyReport(
            str(about["target"]), str(about["device"]), str(about["torch"]), (int(height), int(width)),
            _number(about["spearman"]), _number(about["kendall"]), students,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"`latency` in summary.json holds values that no study writes ({type(error).__name__}: {error}); "
            "continue the study with --resume to write it again."
        ) from error


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _verdict(spearman: float) -> str:
    if spearman > 0.9:
        return "FLOPs are a good proxy for latency on this device"
    if spearman > 0.5:
        return "FLOPs are a rough proxy for latency on this device"
    return "FLOPs are a poor proxy for latency on this device"
