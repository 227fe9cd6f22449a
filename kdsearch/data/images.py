"""Reading and resizing images."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdsearch.data.problems import DamagedFileError, MissingFileError
from kdsearch.errors import UserError

_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error)  # what PIL raises
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""From stored to shown pixels, by orientation in EXIF."""

# Pillow warns of images up to twice its limit, which are read, and refuses larger ones.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """A photograph as it is shown, uint8 `[H, W, 3]`; grey and palette images become RGB, alpha is dropped."""
    return _photograph(path, "RGB")


def read_gray(path: Path) -> NDArray[np.uint8]:
    """The brightness of a photograph as it is shown, uint8 `[H, W]`."""
    return _photograph(path, "L")


def read_rgb_thermal(path: Path) -> NDArray[np.uint8]:
    """A photograph as it is shown, uint8 `[H, W, 4]`, whose thermal channel is in the place of alpha."""
    return _photograph(path, None)


def _photograph(path: Path, mode: str | None) -> NDArray[np.uint8]:
    with open_image(path) as image:
        if image.mode.startswith(("I", "F")):  # 16 or 32 bits, which would wrap around
            raise UserError(f"{path} has {image.mode} pixels; save it with 8 bits per channel")
        if mode is None and image.mode != "RGBA":  # CMYK has four channels as well
            channels = "1 channel" if len(image.getbands()) == 1 else f"{len(image.getbands())} channels"
            raise UserError(f"{path} has {channels} ({image.mode}), images of this set have 4 (RGB and thermal)")
        turn = _TURNS.get(orientation(image))
        pixels = image if turn is None else image.transpose(turn)
        return np.asarray(pixels if mode in (None, pixels.mode) else pixels.convert(mode), dtype=np.uint8)


def orientation(image: Image.Image) -> int:
    """The orientation in an image's EXIF, 1..8; 1 (as stored) where there is none."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, KeyError, struct.error):  # viewers show an image with damaged EXIF as stored
        return 1
    return value if value in _TURNS else 1


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """An image file; what Pillow raises until the block ends becomes a `UserError` that names the file."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise MissingFileError(f"{path} does not exist; add the file, or remove its name from the lists") from None
    except PermissionError:
        raise DamagedFileError(f"{path} may not be read by this user; change its permissions") from None
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(_too_large(path, str(error))) from None
    except _DAMAGED as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); fetch the file again") from None


def _too_large(path: Path, reason: str) -> str:
    found = re.search(r"\((\d+) pixels\)", reason)
    size = f"{int(found[1]) / 1e6:.0f} million pixels" if found else "too many pixels"
    most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
    return (
        f"{path} has {size}, the most that can be read are {most:.0f} million; cut the image and its mask into tiles, "
        "or make both smaller (the mask without interpolation)"
    )


def resize_image(image_hwc: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Bilinear with antialiasing, to `size` (height, width). By channel: PIL would treat a fourth one as alpha."""
    if image_hwc.shape[:2] == size:
        return image_hwc
    return np.dstack([_resize(image_hwc[..., c], size, Image.Resampling.BILINEAR) for c in range(image_hwc.shape[2])])


def resize_label(label_hw: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Nearest, to `size` (height, width)."""
    resized: NDArray[np.uint8] = _resize(label_hw, size, Image.Resampling.NEAREST)
    return resized


def resize_flow(flow_hw2: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Nearest, since the mean of two motions is neither of them; vectors are scaled to the new pixels."""
    height, width = flow_hw2.shape[:2]
    parts = [_resize(flow_hw2[..., c], size, Image.Resampling.NEAREST) for c in (0, 1)]
    scale = np.array([size[1] / width, size[0] / height], np.float32)
    resized: NDArray[np.float32] = np.dstack(parts) * scale
    return resized


def _resize(channel_hw: NDArray[Any], size: tuple[int, int], how: Image.Resampling) -> NDArray[Any]:
    if channel_hw.shape == size:
        return channel_hw
    return np.asarray(Image.fromarray(channel_hw).resize((size[1], size[0]), how))
