"""Base of the readers of image and label files: pairing by name, lists, class ids, next frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.images import read_gray, read_image, read_rgb
from kdsearch.data.info import DatasetInfo
from kdsearch.data.optical_flow import Flow
from kdsearch.data.problems import LabelRangeError, MissingFileError
from kdsearch.data.reader import Sample, check_sample, check_split
from kdsearch.errors import UserError

IMAGE_ENDS = (".png", ".jpg", ".jpeg")
READING = 1
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
    class id or `IGNORE_INDEX`; without it the values are the ids. With a `flow`, every pair has a `next_image`, and the
    set is a video set. `facts` are options that change samples but not files. `UserError` for a key in two splits.
    """

    def __init__(
        self,
        root: Path,
        info: DatasetInfo,
        pairs: dict[str, dict[str, Pair]],
        *,
        ids: Mapping[int, int] | None = None,
        flow: Flow | None = None,
        facts: Sequence[object] = (),
    ) -> None:
        both = pairs["train"].keys() & pairs["val"].keys()
        if both:
            raise UserError(f"{root}: '{min(both)}' is in train and in val; remove it from one of them")
        self.root, self.info = root, replace(info, video=flow is not None)
        self._pairs, self._ids, self._flow, self._facts = pairs, ids, flow, facts

    def keys(self, split: str) -> list[str]:
        check_split(split)
        return list(self._pairs[split])

    def files(self, split: str, key: str) -> list[Path]:
        """The files that `read` reads for a sample."""
        check_split(split)
        return self._pairs[split][key].files()

    def read(self, split: str, key: str) -> Sample:
        check_split(split)
        pair = self._pairs[split][key]
        for path in pair.files():
            if not path.exists():
                raise MissingFileError(
                    f"{_partner(pair, path)} has no {path}; add the file, or remove '{key}' from the set"
                )
        image = self._image(pair.image, pair.thermal)
        sample = Sample(image, self._label(pair.label))
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
            "mask values": None if self._ids is None else sorted(self._ids.items()),
            "flow": None if self._flow is None else self._flow.facts,
            "options": self._facts,
        }

    def _image(self, path: Path, thermal: Path | None) -> NDArray[np.uint8]:
        if self.info.channels == 3:
            return read_rgb(path)
        if thermal is None:
            image = read_image(path)
            if image.ndim != 3 or image.shape[2] != 4:
                channels = 1 if image.ndim == 2 else image.shape[2]
                raise UserError(f"{path} has {channels} channels, images of this set have 4 (RGB and thermal)")
            return image
        rgb, heat = read_rgb(path), read_gray(thermal)
        if rgb.shape[:2] != heat.shape:
            raise UserError(f"{thermal} and {path} differ in size; make both the same size")
        return np.dstack((rgb, heat))

    def _label(self, path: Path) -> NDArray[np.uint8]:
        label = read_image(path)
        if label.ndim != 2:
            raise UserError(f"{path} has {label.shape[2]} channels; use a one-channel image of class ids")
        if self._ids is None:
            return label
        table = np.full(256, -1, np.int16)
        table[list(self._ids)] = list(self._ids.values())
        mapped = table[label]
        if mapped.min() < 0:
            bad = int(label[mapped < 0].min())
            raise LabelRangeError(
                f"{path}: {bad} is no label value of '{self.info.name}'; check that the file is its label"
            )
        return mapped.astype(np.uint8)


def _partner(pair: Pair, missing: Path) -> Path:
    """An existing file of the pair, which tells the user what the missing one belongs to."""
    present = [file for file in pair.files() if file.exists()]
    return present[0] if present else missing.parent


def pair_files(
    images: Path,
    labels: Path,
    names: Iterable[str] | None = None,
    image_ends: Sequence[str] = IMAGE_ENDS,
    label_ends: Sequence[str] = (".png",),
) -> dict[str, Pair]:
    """The pairs of `names`, or of every name in either folder. A name is a file name without its ending.

    A missing file is reported when its sample is read. `UserError` for a folder that is missing or empty.
    """
    have_images, have_labels = files_by_name(images, image_ends), files_by_name(labels, label_ends)
    image_end = next(iter(have_images.values())).suffix if len(image_ends) > 1 else image_ends[0]
    if names is None:
        names = sorted(have_images.keys() | have_labels.keys())
    return {
        name: Pair(
            have_images.get(name, images / f"{name}{image_end}"),
            have_labels.get(name, labels / f"{name}{label_ends[0]}"),
        )
        for name in names
    }


def files_by_name(folder: Path, ends: Sequence[str] = IMAGE_ENDS) -> dict[str, Path]:
    """The files of a folder that end with one of `ends`, by name without the end, in order of names."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; give the folder that holds it, in the data set's official layout")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        end = next((end for end in ends if path.name.lower().endswith(end.lower())), None)
        if end is None or path.name.startswith("."):
            continue
        name = path.name[: -len(end)]
        if name in found:
            raise UserError(f"{found[name]} and {path} have the same name; remove one of them")
        found[name] = path
    if not found:
        raise UserError(f"{folder} holds no file that ends with {' or '.join(ends)}; check the layout of the data set")
    return found


def read_names(path: Path) -> list[str]:
    """The names in a list, one per line: bare, or the last part of a path, without its ending.

    The rest of a line after its first word (in some lists the path of the label) is skipped. `UserError` for a list
    that is missing or empty or repeats a name.
    """
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; the data set needs its lists of names") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file; write one name per line") from None
    names = [_bare(words[0]) for words in lines if words]
    if not names:
        raise UserError(f"{path} names no image; write one name per line")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{path} names '{name}' more than once; remove the repeated lines")
        seen.add(name)
    return names


def _bare(word: str) -> str:
    name = word.rpartition("/")[2]
    end = next((end for end in IMAGE_ENDS if name.lower().endswith(end)), "")
    return name[: len(name) - len(end)]


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
