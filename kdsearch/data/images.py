"""Reading and resizing images."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdsearch.data.problems import DamagedFileError, MissingFileError
from kdsearch.errors import UserError

_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, zlib.error, Image.DecompressionBombError)  # what PIL raises


def read_image(path: Path) -> NDArray[np.uint8]:
    """The pixels of an image file as uint8 `[H, W]` or `[H, W, C]`; palette indices stay indices."""
    return _read(path, None)


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """The pixels of an image file as uint8 `[H, W, 3]`; grey and palette images become RGB, alpha is dropped."""
    return _read(path, "RGB")


def read_gray(path: Path) -> NDArray[np.uint8]:
    """The brightness of an image file as uint8 `[H, W]`."""
    return _read(path, "L")


def _read(path: Path, mode: str | None) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):  # 16 or 32 bits, which would wrap around
                raise UserError(f"{path} has {image.mode} pixels; save it with 8 bits per channel")
            return np.asarray(image if mode in (None, image.mode) else image.convert(mode), dtype=np.uint8)
    except FileNotFoundError:
        raise MissingFileError(f"{path} does not exist; add the file, or remove its name from the lists") from None
    except UserError:
        raise
    except _DAMAGED as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); fetch the file again") from None


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
