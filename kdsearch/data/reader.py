"""The contract of data-set readers, and the checks that they share.

A reader lists the samples of its splits and reads each at its native size; `store/` resizes and keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.data.problems import LabelRangeError
from kdsearch.errors import UserError

SPLITS = ("train", "val")


@dataclass
class Sample:
    """One image and its label at native size.

    `image_hwc` and `next_image_hwc` are uint8 `[H, W, C]`; `label_hw` is uint8 `[H, W]` with class ids and
    `IGNORE_INDEX`. `flow_hw2` is float32 `[H, W, 2]`, (x, y) in pixels: `image(p)` shows what
    `next_image(p + flow(p))` shows.
    """

    image_hwc: NDArray[np.uint8]
    label_hw: NDArray[np.uint8]
    next_image_hwc: NDArray[np.uint8] | None = None
    flow_hw2: NDArray[np.float32] | None = None


class Reader(Protocol):
    """A data set on disk or in code: the contract of every reader.

    **Construction.** The arguments of the constructor, by name and with type hints, are the `options` of the data set
    in a configuration. A reader of files also has an argument `path`, the folder of the data set. The constructor lists
    the samples and reads no image; options without effect are a `UserError`.

    **Keys.** `keys` lists the samples of the splits `"train"` and `"val"`: strings that are unique in their split, in
    an order that never changes. Any other split is a `ValueError`.

    **Samples.** `read` returns one sample, a new one at each call. Reads are independent of each other and may run in
    several threads. A file that is missing, damaged or of a wrong kind is a `UserError` that names it; the classes in
    `problems.py` tell the kinds apart.

    **Shapes.** Every sample has its own native height and width. Its image, its label and, where `info.video` is set,
    its next frame and flow share them. Images have `info.channels` channels, and labels hold the class ids
    `0 .. info.num_classes - 1` and `IGNORE_INDEX`.

    **Content.** `files` lists the files that `read` reads for a sample, none where samples are drawn. `rules` is
    everything else that samples depend on (options, classes, other files by their `kdsearch.io.digests`, the version of
    the way in which files are read), as plain values by name, without paths and times. Keys, rules and the bytes of the
    files are the content of the set, whose fingerprint names its stores and teachers and keeps studies apart.

    **Notes.** A reader may have `notes`, sentences on samples left out of the set; every command shows them. Its
    `doubt` is the remedy where label values that it ignores by itself belong to a class; a set with much of them, in
    which a class never occurs, is then refused.

    `kdsearch.testing.readers.ReaderConformance` tests this contract. Readers are registered by name in `registry.py`,
    or by the mapping `READERS` of a plug-in.
    """

    info: DatasetInfo

    def keys(self, split: str) -> list[str]:
        """Names of the samples of a split."""
        ...

    def read(self, split: str, key: str) -> Sample:
        """The sample named `key`."""
        ...

    def files(self, split: str, key: str) -> list[Path]:
        """The files of the sample named `key`."""
        ...

    def rules(self) -> dict[str, Any]:
        """What samples depend on beside keys and files, in values that JSON has."""
        ...


def splits_of(reader: Reader) -> tuple[str, ...]:
    """The splits that the reader lists: train and val, and those of its attribute `splits`, such as test."""
    return tuple(getattr(reader, "splits", SPLITS))


def reader_notes(reader: Reader) -> tuple[str, ...]:
    """What the reader left out, in sentences; most readers leave nothing out and have no `notes`."""
    return tuple(getattr(reader, "notes", ()))


def check_split(split: str, splits: tuple[str, ...] = SPLITS) -> None:
    """Raise `ValueError` for a split that is none of `splits`."""
    if split not in splits:
        raise ValueError(f"unknown split '{split}'; there are {', '.join(splits)}")


def check_sample(sample: Sample, info: DatasetInfo, where: str) -> NDArray[np.int64]:
    """Check shapes, types and label ids of a sample; `where` names it in errors. Returns its pixels per class."""
    height, width = sample.label_hw.shape
    for image in (sample.image_hwc, sample.next_image_hwc):
        if image is not None and (image.shape != (height, width, info.channels) or image.dtype != np.uint8):
            raise UserError(
                f"{where}: image is {image.dtype} {list(image.shape)}, its label needs "
                f"uint8 {[height, width, info.channels]}; make both the same size"
            )
    counts = np.bincount(sample.label_hw.ravel(), minlength=256)
    counts[IGNORE_INDEX] = 0
    if counts[info.num_classes :].any():
        bad = int(np.flatnonzero(counts[info.num_classes :])[0]) + info.num_classes
        raise LabelRangeError(
            f"{where}: label id {bad} is out of range; use class ids 0..{info.num_classes - 1}, "
            f"and {IGNORE_INDEX} for pixels without a class"
        )
    return counts[: info.num_classes].astype(np.int64)
