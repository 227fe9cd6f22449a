"""Check of a whole data set: its content and its errors. Writes nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.data import set_facts
from kdsearch.data.info import DatasetInfo
from kdsearch.data.problems import KINDS, OTHER, kind_of
from kdsearch.data.reader import SPLITS, Reader, Sample, reader_notes
from kdsearch.data.set_facts import SampleFacts, SplitFacts, sample_facts
from kdsearch.errors import UserError

AHEAD = 64
"""Samples read ahead of the counting; they are dropped once counted."""


@dataclass
class SplitReport:
    """A split: the `facts` of its readable samples, and per class the images with it. `images` counts all samples."""

    facts: SplitFacts
    class_images: NDArray[np.int64]
    images: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    @property
    def pixels(self) -> int:
        return int(self.facts.class_pixels.sum()) + self.facts.ignored

    def to_json(self) -> dict[str, Any]:
        sizes = [{"height": h, "width": w, "images": count} for (h, w), count in self.sizes.most_common()]
        return {
            "images": self.images,
            "readable": self.facts.images,
            "pixels": self.pixels,
            "ignored_pixels": self.facts.ignored,
            "sizes": sizes,
            "class_pixels": self.facts.class_pixels.tolist(),
            "class_images": self.class_images.tolist(),
        }


@dataclass
class Problem:
    """One sample that cannot be used."""

    split: str
    key: str
    kind: str
    message: str


@dataclass
class Report:
    """The result of `check_set`. `shown` are samples for a picture.

    `faults` are reasons why the set cannot be trained although every sample can be read, `notes` its oddities.
    """

    info: DatasetInfo
    splits: dict[str, SplitReport]
    problems: list[Problem]
    shown: list[tuple[str, str, Sample]]
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, dict[str, int]]:
        """Problems by kind and split."""
        kinds = (*KINDS, OTHER)
        return {k: {s: sum((p.kind, p.split) == (k, s) for p in self.problems) for s in self.splits} for k in kinds}

    def absent(self) -> dict[str, list[str]]:
        """Classes that occur in no image, by split."""
        return {
            name: [c for c, count in zip(self.info.classes, split.class_images, strict=True) if count == 0]
            for name, split in self.splits.items()
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.info.name,
            "classes": list(self.info.classes),
            "channels": self.info.channels,
            "video": self.info.video,
            "splits": {name: split.to_json() for name, split in self.splits.items()},
            "absent_classes": self.absent(),
            "problem_counts": self.counts(),
            "problems": [vars(problem) for problem in self.problems],
            "faults": self.faults,
            "notes": self.notes,
        }


def check_set(
    reader: Reader,
    progress: Callable[[int, int], None] | None = None,
    shown: int = 4,
    threads: int | None = None,
) -> Report:
    """Read every sample of every split once, at its native size; keep `shown` samples per split for a picture.

    `progress(done, total)` is called after each sample.
    """
    info = reader.info
    splits = {split: SplitReport(SplitFacts.empty(info), np.zeros(info.num_classes, np.int64)) for split in SPLITS}
    report = Report(info, splits, [], [])
    keys = [(split, key) for split in SPLITS for key in reader.keys(split)]
    pictured = {(s, k) for s in SPLITS for k in _spread(reader.keys(s), shown)}

    def read(split: str, key: str) -> tuple[Sample, SampleFacts] | UserError:
        try:
            sample = reader.read(split, key)
            return sample, sample_facts(sample, info, f"{info.name} {split} sample '{key}'")
        except UserError as error:
            return error

    with ThreadPoolExecutor(threads or min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(keys), AHEAD):
            part = keys[start : start + AHEAD]
            results = pool.map(lambda sample: read(*sample), part)
            for done, ((split, key), result) in enumerate(zip(part, results, strict=True)):
                found = report.splits[split]
                found.images += 1
                if isinstance(result, UserError):
                    report.problems.append(Problem(split, key, kind_of(result), str(result)))
                else:
                    _count(found, key, *result)
                    if (split, key) in pictured:
                        report.shown.append((split, key, result[0]))
                if progress is not None:
                    progress(start + done + 1, len(keys))
    report.notes.extend(reader_notes(reader))
    if not report.problems:  # else a missing class may be in the samples that cannot be read
        contents = {split: found.facts for split, found in splits.items()}
        report.faults = set_facts.faults(reader, contents)
        report.notes.extend(set_facts.notes(reader, contents) if not report.faults else ())
    return report


def _count(found: SplitReport, key: str, sample: Sample, counts: SampleFacts) -> None:
    height, width = sample.label_hw.shape
    found.sizes[height, width] += 1
    found.facts.add(key, counts)
    found.class_images += np.array(counts.class_pixels) > 0


def _spread(keys: list[str], count: int) -> list[str]:
    """`count` of the keys, at even distances."""
    places = np.linspace(0, len(keys) - 1, min(count, len(keys))).round().astype(int)
    return [keys[place] for place in places]
