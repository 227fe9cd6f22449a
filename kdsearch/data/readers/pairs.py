"""Base of the readers of image and label files: pairing by name, lists, class ids, next frames."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kdsearch.data.images import read_gray, read_rgb, read_rgb_thermal
from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.data.mask_files import Colour
from kdsearch.data.optical_flow import Flow
from kdsearch.data.problems import MissingFileError
from kdsearch.data.reader import SPLITS, Sample, check_sample, check_split
from kdsearch.data.readers.masks import Masks
from kdsearch.data.readers.names import IMAGE_ENDS, FilesByName, read_names
from kdsearch.errors import UserError

Share = Annotated[float, Field(ge=0, lt=1)]

READING = 2
"""Version of the way from the bytes of a file to pixels and class ids; raised where the same files give others."""


@dataclass(frozen=True)
class Pair:
    """The files of one sample. Thermal files are set if the fourth channel has files of its own."""

    image: Path
    label: Path
    thermal: Path | None = None
    next_image: Path | None = None
    next_thermal: Path | None = None

    def files(self) -> list[Path]:
        files = (self.image, self.label, self.thermal, self.next_image, self.next_thermal)
        return [file for file in files if file is not None]


class PairReader:
    """Base of the readers whose samples are pairs of files.

    `pairs` holds the files of each split's samples by key. `ids` maps each value that a label file may contain to its
    class id or `IGNORE_INDEX`; without it the values are the ids. `colours` likewise, for label files of colours;
    `source` is the file that defines both, if one does. With a `flow`, every pair has a `next_image`, and the set is a
    video set. `facts` are options that change samples but not files; `notes` say what the reader left out. `UserError`
    for a key in two splits; without `one_namespace`, if its image is the same file.

    `tests` are further splits, such as `test`: a function that lists their files, called on first use. A study never
    reads them. `holdout` is for sets without a test split, see `hold_out`.
    """

    doubt = ""

    def __init__(
        self,
        root: Path,
        info: DatasetInfo,
        pairs: dict[str, dict[str, Pair]],
        *,
        ids: Mapping[int, int] | None = None,
        colours: Mapping[Colour, int] | None = None,
        source: str | None = None,
        one_namespace: bool = True,
        flow: Flow | None = None,
        facts: Sequence[object] = (),
        notes: Sequence[str] = (),
        tests: Mapping[str, Callable[[], dict[str, Pair]]] | None = None,
        holdout: float = 0.0,
    ) -> None:
        if holdout:
            pairs, tests = hold_out(pairs, holdout)
        self._one_namespace, self._tests = one_namespace, dict(tests or {})
        self.splits = (*SPLITS, *self._tests)
        self.root = root
        self._check_split("train", pairs["train"], {})
        self._check_split("val", pairs["val"], {"train": pairs["train"]})
        self.info, self.notes = replace(info, video=flow is not None), tuple(notes)
        self._pairs, self._flow = pairs, flow
        self._ids = dict(ids) if ids else {**{i: i for i in range(info.num_classes)}, IGNORE_INDEX: IGNORE_INDEX}
        self._masks = Masks(info.name, self._ids, colours or {}, self._label_files, source)
        self._facts, self._colours = facts, colours or {}

    def keys(self, split: str) -> list[str]:
        return list(self._samples(split))

    def files(self, split: str, key: str) -> list[Path]:
        """The files that `read` reads for a sample."""
        return self._samples(split)[key].files()

    def read(self, split: str, key: str) -> Sample:
        pair = self._samples(split)[key]
        for path in pair.files():
            if not os.path.exists(path):
                raise MissingFileError(
                    f"{_partner(pair, path)} has no {path}; add the file, or remove '{key}' from the set"
                )
        image = self._image(pair.image, pair.thermal)
        sample = Sample(image, self._masks.read(pair.label))
        if image.shape[:2] == sample.label_hw.T.shape != sample.label_hw.shape:
            raise UserError(
                f"{pair.label} is turned by a quarter against {pair.image}, which is read as viewers show it; "
                "turn the mask, or remove the orientation from the image's EXIF"
            )
        if self._flow is not None and pair.next_image is not None:
            following = self._image(pair.next_image, pair.next_thermal)
            if following.shape != image.shape:
                raise UserError(f"{pair.next_image} and {pair.image} differ in size; frames of a video need one size")
            sample.next_image_hwc, sample.flow_hw2 = following, self._flow(image, following)
        check_sample(sample, self.info, str(pair.label))
        return sample

    def rules(self) -> dict[str, Any]:
        return {
            "reading": READING,
            **asdict(self.info),
            "mask values": sorted(self._ids.items()),
            "mask colours": sorted(self._colours.items()),
            "flow": None if self._flow is None else self._flow.facts,
            "options": self._facts,
        }

    def _samples(self, split: str) -> dict[str, Pair]:
        check_split(split, self.splits)
        if split not in self._pairs:
            pairs = self._tests[split]()
            self._check_split(split, pairs, {name: self._pairs[name] for name in SPLITS})
            self._pairs[split] = pairs
        return self._pairs[split]

    def _check_split(self, split: str, pairs: dict[str, Pair], others: Mapping[str, dict[str, Pair]]) -> None:
        """`UserError` for a split without samples, and for a sample that is in another one as well."""
        if not pairs:
            raise UserError(f"{self.root}: {split} has no image; add images, or their names to its list")
        for name, other in others.items():
            both = other.keys() & pairs.keys()
            if not self._one_namespace:
                both = {key for key in both if other[key].image == pairs[key].image}
            if both:
                raise UserError(f"{self.root}: '{min(both)}' is in {name} and in {split}; remove it from one of them")

    def _image(self, path: Path, thermal: Path | None) -> NDArray[np.uint8]:
        if self.info.channels == 3:
            return read_rgb(path)
        if thermal is None:
            return read_rgb_thermal(path)
        rgb, heat = read_rgb(path), read_gray(thermal)
        if rgb.shape[:2] != heat.shape:
            raise UserError(f"{thermal} and {path} differ in size; make both the same size")
        return np.dstack((rgb, heat))

    def _label_files(self) -> list[Path]:
        return [pair.label for split in SPLITS for pair in self._pairs[split].values()]


def _partner(pair: Pair, missing: Path) -> Path:
    """An existing file of the pair, which tells the user what the missing one belongs to."""
    present = [file for file in pair.files() if file.exists()]
    return present[0] if present else missing.parent


def pair_files(
    images: Path,
    labels: Path,
    listed: Path | None = None,
    image_ends: Sequence[str] = IMAGE_ENDS,
    label_ends: Sequence[str] = (".png",),
) -> dict[str, Pair]:
    """The pairs of the names in the list `listed`, or of every name in either folder. Names are without the ending.

    A missing file is reported when its sample is read. `UserError` for a folder that is missing, or is empty though
    the paths of its files do not follow from the list.
    """
    known = listed is not None and len(image_ends) == 1
    have_images, have_labels = FilesByName(images, image_ends, known), FilesByName(labels, label_ends, known)
    image_end = have_images.end() if len(image_ends) > 1 else image_ends[0]

    def label_name(name: str) -> str | None:
        other = have_labels.real(name)  # in another case only if no image has that name
        return None if other != name and other in have_images else other

    if listed is not None:
        names = read_names(listed, lambda name: have_images.real(name) or have_labels.real(name))
    else:
        alone = set(have_labels.names) - {label_name(name) for name in have_images.names}
        names = dict.fromkeys(sorted({*have_images.names, *alone}), "")
    pairs = {}
    for name, file_name in names.items():
        label = label_name(name)
        pairs[name] = Pair(
            have_images.get(name, file_name) or images / f"{name}{image_end}",
            (have_labels.get(label) if label is not None else None) or labels / f"{name}{label_ends[0]}",
        )
    return pairs


def hold_out(
    pairs: dict[str, dict[str, Pair]], share: float
) -> tuple[dict[str, dict[str, Pair]], dict[str, Callable[[], dict[str, Pair]]]]:
    """`pairs` with about a `share` of train as val, and the val of before as the split test.

    A digest of its name decides where a sample belongs, so images that are added later move no other.
    """

    def is_held_out(name: str) -> bool:
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) < share * 2**64

    parts: dict[bool, dict[str, Pair]] = {True: {}, False: {}}
    for name, pair in pairs["train"].items():
        parts[is_held_out(name)][name] = pair
    return {"train": parts[False], "val": parts[True]}, {"test": lambda: pairs["val"]}


def pair_frames(pairs: dict[str, Pair], gap: int) -> dict[str, Pair]:
    """Each pair with the frame `gap` pairs later in its sequence; for the last `gap` pairs, the frame `gap` earlier.

    A key is SEQUENCE_NUMBER, where letters may precede the number: `0006R0_f00930`. `UserError` for keys of another
    form, and for sequences with fewer than `2 gap` frames.
    """
    sequences: dict[str, list[tuple[int, str]]] = {}
    for key, pair in pairs.items():
        sequence, _, frame = key.rpartition("_")
        digits = frame.lstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
        if not (sequence and digits.isdecimal()):
            raise UserError(f"{pair.image} is not named SEQUENCE_NUMBER, so its next frame is unknown; set flow: none")
        sequences.setdefault(sequence, []).append((int(digits), key))
    following: dict[str, Pair] = {}
    for sequence, frames in sequences.items():
        if len(frames) < 2 * gap:
            raise UserError(
                f"sequence '{sequence}' has {len(frames)} frame{'s' * (len(frames) > 1)}, a gap of {gap} needs "
                f"{2 * gap}: lower gap, remove the sequence from the set, or set flow: none"
            )
        keys = [key for _, key in sorted(frames)]
        for index, key in enumerate(keys):
            other = index + gap if index + gap < len(keys) else index - gap
            following[key] = pairs[keys[other]]
    return {
        key: replace(pair, next_image=following[key].image, next_thermal=following[key].thermal)
        for key, pair in pairs.items()
    }


def colour_map(count: int) -> tuple[tuple[int, int, int], ...]:
    """Distinct colours of ids 0..count - 1 by the scheme of Pascal VOC: bits of the id fill the channels from above."""
    return tuple(
        (
            sum((i >> 3 * bit & 1) << 7 - bit for bit in range(8)),
            sum((i >> 3 * bit + 1 & 1) << 7 - bit for bit in range(8)),
            sum((i >> 3 * bit + 2 & 1) << 7 - bit for bit in range(8)),
        )
        for i in range(count)
    )
