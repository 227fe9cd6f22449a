"""Label files as they were written: gray values, palette indices or colours, with their bit depth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdsearch.data.images import open_image, orientation
from kdsearch.errors import UserError

Colour = tuple[int, int, int]
_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF", "HEIF")
_SAVE = "save it as PNG of one channel with 8 bits"


@dataclass(frozen=True)
class Encoding:
    """How a label file holds its values. `bits` are those of a value; `palette` has the colours of the indices."""

    kind: Literal["gray", "palette", "colour"]
    bits: int
    palette: tuple[Colour, ...] = ()


def read_encoding(path: Path) -> Encoding:
    """The encoding of a label file, from its header alone."""
    with open_image(path) as image:
        return _encoding(path, image)


def read_mask(path: Path) -> tuple[NDArray[np.int32], Encoding]:
    """The values of a label file, int32 `[H, W]`: gray values as stored, palette indices, or `colour_code`s.

    `UserError` for files in which a class may have become another: of lossy formats, turned by EXIF, with transparent
    pixels, or with values that Pillow shortens.
    """
    with open_image(path) as image:
        encoding = _encoding(path, image)
        if image.format in _LOSSY:
            raise UserError(
                f"{path} is a {image.format} image, whose compression changes the values of masks; make it anew as PNG"
            )
        if orientation(image) != 1:
            raise UserError(
                f"{path} has an orientation in its EXIF, and it is unknown whether its pixels are turned already; "
                "save the mask as it is shown, without EXIF"
            )
        pixels = np.asarray(image).astype(np.int32)
        bands = len(image.getbands())
    if bands in (2, 4):
        if pixels[..., -1].min() < 255:
            raise UserError(f"{path} has transparent pixels, whose class is unknown; {_SAVE}")
        pixels = pixels[..., 0] if encoding.kind == "gray" else pixels[..., :3]
    if encoding.kind == "colour":
        pixels = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    elif encoding.kind == "gray" and encoding.bits in (2, 4):
        pixels //= 255 // (2**encoding.bits - 1)  # Pillow spreads the stored values over 0..255
    return pixels, encoding


def colour_code(colour: Colour) -> int:
    """A colour as one number."""
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _encoding(path: Path, image: Image.Image) -> Encoding:
    tiles = getattr(image, "tile", None)  # the only place where Pillow has the depth of the file
    raw = tiles[0][3] if tiles else image.mode
    depth = str(raw[0] if isinstance(raw, tuple) and raw else raw).partition(";")[2]
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        return Encoding("gray", 16)
    if depth.startswith("16"):
        raise UserError(f"{path} has 16 bits in each of its channels; {_SAVE}")
    if image.mode in ("1", "L", "LA"):
        return Encoding("gray", 1 if image.mode == "1" else int(depth) if depth in ("2", "4") else 8)
    if image.mode == "P":
        values = image.getpalette() or []
        return Encoding("palette", 8, tuple((r, g, b) for r, g, b in zip(*[iter(values)] * 3, strict=False)))
    if image.mode in ("RGB", "RGBA"):
        return Encoding("colour", 8)
    raise UserError(f"{path} has {image.mode} pixels, which are no class ids; {_SAVE}")
