"""What the samples of a data set hold, and whether it can be trained: one answer for every command."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.data.reader import Reader, Sample, check_sample

MUCH = 0.25
"""Share of pixels without a class from which a class that never occurs is taken for a wrong label value."""
SMEARED = 0.3
"""Share of border pixels outside every uniform square of 2x2 from which masks are taken for smeared. On the masks of
CamVid, Cityscapes, VOC, ADE20K, COCO-Stuff and MFNet it is below 0.15; after bilinear resizing or JPEG mostly over 0.4.
"""
NOISE = 0.5
"""Share of border pixels from which masks are not judged: they have no areas."""
NAMED = 5
"""Classes that a message names."""


@dataclass(frozen=True)
class SampleFacts:
    """A sample at native size: its pixels of each class, those without one, those at a border between labels, those of
    them in no uniform square of 2x2, and a digest of its image.
    """

    class_pixels: list[int]
    ignored: int
    border: int
    thin: int
    digest: str


@dataclass
class SplitFacts:
    """The samples of a split together. `keys` has one key for each distinct image, by digest."""

    class_pixels: NDArray[np.int64]
    images: int = 0
    ignored: int = 0
    border: int = 0
    thin: int = 0
    keys: dict[str, str] = field(default_factory=dict)

    @classmethod
    def empty(cls, info: DatasetInfo) -> SplitFacts:
        return cls(np.zeros(info.num_classes, np.int64))

    def add(self, key: str, content: SampleFacts) -> None:
        self.images += 1
        self.class_pixels = self.class_pixels + np.array(content.class_pixels, np.int64)
        self.ignored += content.ignored
        self.border += content.border
        self.thin += content.thin
        self.keys.setdefault(content.digest, key)


def sample_facts(sample: Sample, info: DatasetInfo, where: str) -> SampleFacts:
    """Check a sample, and count it; `where` names it in errors."""
    pixels = check_sample(sample, info, where)
    image = np.ascontiguousarray(sample.image_hwc)
    digest = hashlib.blake2b(image.data, digest_size=16, person=str(image.shape).encode()[:16]).hexdigest()
    ignored = int((sample.label_hw == IGNORE_INDEX).sum())
    return SampleFacts(pixels.tolist(), ignored, *_borders(sample.label_hw), digest)


def _borders(label_hw: NDArray[np.uint8]) -> tuple[int, int]:
    """Pixels with another label beside, above or below them; and those of them in no uniform square of 2x2."""
    across, down = label_hw[:, 1:] != label_hw[:, :-1], label_hw[1:] != label_hw[:-1]
    border, areas = np.zeros(label_hw.shape, bool), np.zeros(label_hw.shape, bool)
    for part in (border[:, 1:], border[:, :-1]):
        part |= across
    for part in (border[1:], border[:-1]):
        part |= down
    uniform = ~(across[1:] | across[:-1] | down[:, 1:] | down[:, :-1])
    for part in (areas[1:, 1:], areas[1:, :-1], areas[:-1, 1:], areas[:-1, :-1]):
        part |= uniform
    return int(border.sum()), int((border & ~areas).sum())


def faults(reader: Reader, splits: Mapping[str, SplitFacts]) -> list[str]:
    """Why the set cannot be trained although each sample can be read; empty if it can."""
    info, doubt = reader.info, getattr(reader, "doubt", "")
    share = f", while {_ignored(splits):.0%} of all pixels have none" if _ignored(splits) else ""
    remedy = f"; {doubt}" if doubt and share else "; add images of other classes, or correct the label values"
    empty = [name for name, split in splits.items() if split.images == 0]
    if empty:
        return [f"{' and '.join(empty)} {'has' if len(empty) == 1 else 'have'} no image; add images"]
    unlabelled = [name for name, split in splits.items() if not split.class_pixels.any()]
    if unlabelled:
        return [f"no pixel of {' or '.join(unlabelled)} has a class{remedy}"]
    present = np.flatnonzero(splits["train"].class_pixels)
    if len(present) == 1:
        return [f"every pixel of train that has a class is '{info.classes[present[0]]}'{share}{remedy}"]
    if doubt and _ignored(splits) >= MUCH and (absent := _absent(info, splits, *splits)):
        return [f"no pixel of train or val is {_quoted(absent)}{share}{remedy}"]
    return []


def notes(reader: Reader, splits: Mapping[str, SplitFacts]) -> list[str]:
    """What is odd about the set and no reason to refuse it."""
    info, found = reader.info, []
    shared = [digest for digest in splits["val"].keys if digest in splits["train"].keys]
    if shared:
        train, val = (splits[name].keys[shared[0]] for name in ("train", "val"))
        found.append(
            f"of val {len(shared)} image{'s are' if len(shared) > 1 else ' is'} in train as well, pixel by pixel, such "
            f"as '{val}' of val and '{train}' of train: validation measures there what was learnt by heart; "
            "remove them from one split"
        )
    border, thin = sum(split.border for split in splits.values()), sum(split.thin for split in splits.values())
    if thin > SMEARED * border and border < NOISE * _pixels(splits):
        found.append(
            f"{thin / border:.0%} of the pixels at borders of masks stand alone, as after JPEG or smooth resizing, "
            "which make other classes out of mixed values: look at the picture of 'kdsearch data check'"
        )
    if absent := _absent(info, splits, "train"):
        found.append(f"no pixel of train is {_quoted(absent)}: a class that is never seen is not learnt")
    present = np.flatnonzero(splits["val"].class_pixels)
    if len(present) == 1:
        found.append(f"every pixel of val that has a class is '{info.classes[present[0]]}': the mIoU is of it alone")
    return found


def _absent(info: DatasetInfo, splits: Mapping[str, SplitFacts], *names: str) -> list[str]:
    pixels = sum(splits[name].class_pixels for name in names)
    return [name for name, count in zip(info.classes, np.asarray(pixels).tolist(), strict=True) if count == 0]


def _ignored(splits: Mapping[str, SplitFacts]) -> float:
    """Share of all pixels without a class."""
    return sum(split.ignored for split in splits.values()) / max(1, _pixels(splits))


def _pixels(splits: Mapping[str, SplitFacts]) -> int:
    return sum(int(split.class_pixels.sum()) + split.ignored for split in splits.values())


def _quoted(names: list[str]) -> str:
    more = f" or one of {len(names) - NAMED} more classes" if len(names) > NAMED else ""
    return " or ".join(f"'{name}'" for name in names[:NAMED]) + more
