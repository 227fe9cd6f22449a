"""Label files decoded to class ids, whatever tool wrote them: read right or refused, never as another class.

A tool that saves a mask again may renumber its palette, spread its values over another bit depth, or drop its colours.
Where a file can be read in two ways that differ, all label files of the set are asked: a set of one tool is written in
one way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.mask_files import Colour, Encoding, colour_code, read_encoding, read_mask
from kdsearch.data.problems import LabelRangeError
from kdsearch.errors import UserError

NAMED = 5
"""Values or colours that an error message names."""
_UNKNOWN = -1
_REMEDY = "save all masks of the set as 8-bit gray PNG of class ids"


@dataclass
class _Written:
    """How the label files of a set are written, and two files whose palettes disagree."""

    kinds: set[tuple[str, int]] = field(default_factory=set)
    clash: str = ""


class Masks:
    """Decoder of the label files of a set.

    `ids` maps each value that a file may hold to its class id or `IGNORE_INDEX`, `colours` likewise each colour;
    without colours a file of colours is refused. `files` lists all label files. `source` is the file that gives values
    and colours their classes, for messages.
    """

    def __init__(
        self,
        name: str,
        ids: Mapping[int, int],
        colours: Mapping[Colour, int],
        files: Callable[[], Iterable[Path]],
        source: str | None = None,
    ) -> None:
        self.name, self.ids, self.colours, self.source = name, dict(ids), dict(colours), source
        self._files = files
        self._table = np.full(257, _UNKNOWN, np.int16)  # the last entry is that of values over 255
        self._table[list(ids)] = list(ids.values())
        by_code = sorted((colour_code(colour), value) for colour, value in colours.items())
        self._codes = np.array([code for code, _ in by_code], np.int32)
        self._colour_ids = np.array([value for _, value in by_code], np.int16)

    def read(self, path: Path) -> NDArray[np.uint8]:
        """The class ids of a label file, uint8 `[H, W]`."""
        values, encoding = read_mask(path)
        if encoding.kind == "palette":
            return self._of_palette(path, values, encoding.palette)
        if encoding.kind == "gray":
            return self._of_gray(path, values, encoding)
        if self.colours:
            return self._of_colours(path, values, "has 3 channels")
        if not np.array_equal(values & 255, values >> 8 & 255) or not np.array_equal(values & 255, values >> 16):
            where = f", or give each class its colour in {self.source}" if self.source else ""
            raise UserError(
                f"{path} has 3 channels; use a one-channel image of class ids{where}: {_listed(*_counted(values))}"
            )
        return self._checked(path, values & 255)

    def _of_gray(self, path: Path, values: NDArray[np.int32], encoding: Encoding) -> NDArray[np.uint8]:
        shown = values
        if encoding.bits < 8:
            shown = values * (255 // (2**encoding.bits - 1))
        elif encoding.bits == 16 and values.max() > 255 and not (values % 257).any():
            values = shown = values // 257
        if self.colours and any(kind == "colour" for kind, _ in self._written.kinds):
            # In a set of colours, a tool may have dropped the colour channels of a mask of black, gray and white alone.
            return self._of_colours(path, shown << 16 | shown << 8 | shown, "is gray among masks of colours")
        if encoding.bits == 16 and (bad := values[self._lookup(values) == _UNKNOWN]).size:
            raise LabelRangeError(
                f"{path} has I;16 pixels; save it with 8 bits: {bad[0]} is no label value of '{self.name}'"
            )
        if encoding.bits >= 8:
            return self._checked(path, values)
        how = f"{encoding.bits} bit{'s' * (encoding.bits > 1)} per pixel"
        return self._either(path, values, shown, how, alike=self._written.kinds == {("gray", encoding.bits)})

    def _of_palette(self, path: Path, indices: NDArray[np.int32], palette: tuple[Colour, ...]) -> NDArray[np.uint8]:
        used = [int(i) for i in np.flatnonzero(np.bincount(indices.ravel(), minlength=256))]
        shown = {i: palette[i] for i in used if i < len(palette)}
        if self.colours and len(shown) == len(used) and all(colour in self.colours for colour in shown.values()):
            codes = np.array([colour_code(colour) for colour in palette], np.int32)
            return self._of_colours(path, codes[indices], "has a palette")
        for i, colour in shown.items():
            if colour in self.colours and self.colours[colour] != self._table[i]:
                raise UserError(
                    f"{path}: entry {i} of its palette has the colour {colour} of another class, so that a tool has "
                    f"renumbered it; {_REMEDY}"
                )
        if all(colour == (i, i, i) for i, colour in shown.items()):
            return self._checked(path, indices)
        if all(r == g == b for r, g, b in palette):
            grays = np.array([r for r, _, _ in palette] + [256] * (256 - len(palette)), np.int32)
            if (self._table[grays[: len(palette)]] != _UNKNOWN).all():
                alike = {kind for kind, _ in self._written.kinds} == {"palette"} and not self._written.clash
                return self._either(path, indices, grays[indices], "a palette of grays", alike)
        if self._written.clash:
            raise UserError(f"{path}: {self._written.clash}, so that a tool has renumbered palettes; {_REMEDY}")
        return self._checked(path, indices)

    def _of_colours(self, path: Path, codes: NDArray[np.int32], what: str) -> NDArray[np.uint8]:
        places = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        unknown = self._codes[places] != codes
        if unknown.any():
            which = _listed(*_counted(codes[unknown]))
            remedy = (
                f"use a one-channel image of class ids, or give these colours to classes or to ignore in {self.source}"
                if self.source
                else f"use a one-channel image of class ids: these colours are of no class of '{self.name}'"
            )
            raise LabelRangeError(f"{path} {what}; {remedy}: {which} ({unknown.sum()} of {unknown.size} pixels)")
        found: NDArray[np.uint8] = self._colour_ids[places].astype(np.uint8)
        return found

    def _either(
        self, path: Path, values: NDArray[np.int32], others: NDArray[np.int32], how: str, alike: bool
    ) -> NDArray[np.uint8]:
        """Stored `values`, or the `others` that are shown for them: the reading in which all are label values.

        Where both are, the stored ones, unless another class is shown, or what is shown is ignored and the set is not
        written `alike`.
        """
        stored, shown = self._lookup(values), self._lookup(others)
        if (shown == _UNKNOWN).any():
            return self._checked(path, values)
        if (stored == _UNKNOWN).any():
            return shown.astype(np.uint8)
        differing = shown[shown != stored]
        if (differing != IGNORE_INDEX).any() or (differing.size and not alike):
            first = int(np.flatnonzero((shown != stored).ravel())[0])
            raise UserError(
                f"{path} has {how}, of which {values.ravel()[first]} may also be {others.ravel()[first]}; {_REMEDY}"
            )
        return stored.astype(np.uint8)

    def _checked(self, path: Path, values: NDArray[np.int32]) -> NDArray[np.uint8]:
        mapped = self._lookup(values)
        if mapped.min() != _UNKNOWN:
            return mapped.astype(np.uint8)
        wrong = np.unique(values[mapped == _UNKNOWN]).tolist()
        if self.ids.items() <= {(IGNORE_INDEX, IGNORE_INDEX), *((i, i) for i in range(IGNORE_INDEX))}:
            classes = _ranges(self.ids.keys() - {IGNORE_INDEX})
            raise LabelRangeError(
                f"{path}: label id {wrong[0]} is out of range; use class ids {classes}, "
                f"and {IGNORE_INDEX} for pixels without a class"
            )
        more = f", nor are {_ranges(wrong[1:])}" if len(wrong) > 1 else ""
        raise LabelRangeError(
            f"{path}: {wrong[0]} is no label value of '{self.name}'{more} (there are {_ranges(self.ids)}); check that "
            "the file is its label" + (f", or name the value in {self.source}" if self.source else "")
        )

    def _lookup(self, values: NDArray[np.int32]) -> NDArray[np.int16]:
        return self._table[np.where(values < 0, 256, values.clip(max=256))]

    @cached_property
    def _written(self) -> _Written:
        written, seen = _Written(), {}  # type: tuple[_Written, dict[int, tuple[Colour, Path]]]
        for path in self._files():
            try:
                encoding = read_encoding(path)
            except UserError:  # reported when the file itself is read
                continue
            written.kinds.add((encoding.kind, encoding.bits))
            palette = list(encoding.palette)
            if all(colour == (i, i, i) for i, colour in enumerate(palette)):
                continue  # the index is the gray that is shown
            while len(palette) > 1 and palette[-1] == (0, 0, 0):  # writers fill palettes up with black
                palette.pop()
            for i, colour in enumerate(palette):
                other, where = seen.setdefault(i, (colour, path))
                if other != colour and not written.clash:
                    written.clash = f"entry {i} of the palette is {other} in {where.name} and {colour} in {path.name}"
        return written


def _counted(values: NDArray[np.int32]) -> tuple[list[int], list[int]]:
    """Distinct values and their counts, most frequent first."""
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return found[order].tolist(), counts[order].tolist()


def _listed(found: list[int], counts: list[int]) -> str:
    """Colours with their pixels."""
    named = zip(found[:NAMED], counts, strict=False)
    first = ", ".join(f"{(code >> 16, code >> 8 & 255, code & 255)} of {count} pixels" for code, count in named)
    return first + (f", and {len(found) - NAMED} more" if len(found) > NAMED else "")


def _ranges(values: Iterable[int]) -> str:
    """Numbers as ranges: `0..8, 255`."""
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and parts[-1][1] == value - 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}..{high}" for low, high in parts)
