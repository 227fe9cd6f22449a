"""`evaluations.jsonl` of a run folder: every measurement of its students by `kdsearch evaluate`, oldest first.

It shows how often a test split was looked at. The file may come from somebody else, so only plain numbers and short
texts are taken from it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsearch.io.json_text import to_json

FILE = "evaluations.jsonl"


@dataclass(frozen=True)
class Measurement:
    """The last result of one student on one split by one protocol, and how often it was measured so."""

    student: str
    dataset: str
    split: str
    protocol: str
    """Digest of the rules."""
    images: int
    miou: float
    boundary_iou: float | None
    times: int
    last: str
    """Date and time."""


def append(run: Path, student: str, result: Mapping[str, Any]) -> None:
    """Add the result of a measurement, `Evaluation.to_dict()`, to the file in the run folder."""
    line = {"when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "student": student, **result}
    with (run / FILE).open("a", encoding="utf-8") as file:
        file.write(to_json(line) + "\n")


def read(run: Path) -> Sequence[Measurement]:
    """The measurements in the order of their first; none where the file is missing. Damaged lines are left out."""
    try:
        lines = (run / FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found: dict[tuple[str, str, str, str], Measurement] = {}
    for line in lines:
        try:
            value = json.loads(line)
            texts = value["student"], value["dataset"], value["split"], value["protocol"]["digest"]
            student, dataset, split, protocol = (str(text)[:100] for text in texts)
            boundary = value["metrics"].get("boundary_iou")
            key = student, dataset, split, protocol
            found[key] = Measurement(
                *key,
                images=int(value["images"]),
                miou=float(value["metrics"]["miou"]),
                boundary_iou=None if boundary is None else float(boundary),
                times=found[key].times + 1 if key in found else 1,
                last=str(value["when"])[:30],
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
    return list(found.values())
