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

from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.data.problems import KINDS, OTHER, kind_of
from kdsearch.data.reader import SPLITS, Reader, Sample, check_sample
from kdsearch.errors import UserError

AHEAD = 64
"""Samples read ahead of the counting; they are dropped once counted."""


@dataclass
class SplitReport:
    """The content of a split. `class_pixels` and `class_images` count, per class, its pixels and images with it."""

    class_pixels: NDArray[np.int64]
    class_images: NDArray[np.int64]
    images: int = 0
    readable: int = 0
    pixels: int = 0
    ignored: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        sizes = [{"height": h, "width": w, "images": count} for (h, w), count in self.sizes.most_common()]
        return {
            "images": self.images,
            "readable": self.readable,
            "pixels": self.pixels,
            "ignored_pixels": self.ignored,
            "sizes": sizes,
            "class_pixels": self.class_pixels.tolist(),
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
    """The result of `check_set`. `shown` are samples for a picture."""

    info: DatasetInfo
    splits: dict[str, SplitReport]
    problems: list[Problem]
    shown: list[tuple[str, str, Sample]]

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
    empty = np.zeros(info.num_classes, np.int64)
    report = Report(info, {split: SplitReport(empty.copy(), empty.copy()) for split in SPLITS}, [], [])
    keys = [(split, key) for split in SPLITS for key in reader.keys(split)]
    pictured = {(s, k) for s in SPLITS for k in _spread(reader.keys(s), shown)}

    def read(split: str, key: str) -> tuple[Sample, NDArray[np.int64]] | UserError:
        try:
            sample = reader.read(split, key)
            counts = check_sample(sample, info, f"{info.name} {split} sample '{key}'")
        except UserError as error:
            return error
        return sample, counts

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
                    _count(found, *result)
                    if (split, key) in pictured:
                        report.shown.append((split, key, result[0]))
                if progress is not None:
                    progress(start + done + 1, len(keys))
    return report


def _count(found: SplitReport, sample: Sample, counts: NDArray[np.int64]) -> None:
    height, width = sample.label_hw.shape
    found.readable += 1
    found.sizes[height, width] += 1
    found.pixels += height * width
    found.ignored += int((sample.label_hw == IGNORE_INDEX).sum())
    found.class_pixels += counts
    found.class_images += counts > 0


def _spread(keys: list[str], count: int) -> list[str]:
    """`count` of the keys, at even distances."""
    places = np.linspace(0, len(keys) - 1, min(count, len(keys))).round().astype(int)
    return [keys[place] for place in places]
