"""One picture of a data set: a few samples with their labels laid over them, and the colours of the classes."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from kdsearch.data.images import resize_image, resize_label
from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.data.reader import SPLITS, Sample

WIDTH, GAP, LINE, LEGEND = 320, 6, 16, 170
OVERLAY = 0.55
"""Share of the class colour where a label lies over its image."""


def write_picture(path: Path, info: DatasetInfo, shown: list[tuple[str, str, Sample]]) -> None:
    """One sample per row, `train` left and `val` right: the image, thermal and flow if present, and the overlay.

    Pixels without a class keep the image's colour, hatched. The suffix of `path` selects one of Pillow's formats.
    """
    columns = [
        [_panels(info, f"{split} {key}", sample) for split, key, sample in shown if split == name] for name in SPLITS
    ]
    blank = np.full((1, 1, 3), 255, np.uint8)
    rows = [_beside([left if left is not None else blank, right if right is not None else blank])
            for left, right in zip_longest(*columns)]  # fmt: skip
    body = _below(rows) if rows else blank
    legend = _legend(info, body.shape[0])
    Image.fromarray(_beside([body, legend])).save(path)


def overlay(image_hwc: NDArray[np.uint8], label_hw: NDArray[np.uint8], info: DatasetInfo) -> NDArray[np.uint8]:
    """An RGB image with the colours of its classes over it; pixels without a class hatched in white."""
    colours = np.zeros((256, 3), np.float32)
    colours[: info.num_classes] = info.palette
    mixed = image_hwc[..., :3] * (1 - OVERLAY) + colours[label_hw] * OVERLAY
    y, x = np.indices(label_hw.shape)
    hatched = np.where(np.less((x + y) % 8, 2)[..., None], 255, image_hwc[..., :3])
    result: NDArray[np.uint8] = mixed.round().astype(np.uint8)
    ignored = np.equal(label_hw, IGNORE_INDEX)
    result[ignored] = hatched[ignored]
    return result


def _panels(info: DatasetInfo, title: str, sample: Sample) -> NDArray[np.uint8]:
    """The pictures of one sample side by side, under its title."""
    height, width = sample.label_hw.shape
    size = (max(1, round(height * WIDTH / width)), WIDTH)
    image = resize_image(sample.image_hwc, size)
    panels = [np.ascontiguousarray(image[..., :3])]
    if info.channels == 4:
        panels.append(np.repeat(image[..., 3:], 3, axis=2))
    if sample.flow_hw2 is not None:
        panels.append(resize_image(_flow_colours(sample.flow_hw2), size))
    panels.append(overlay(image, resize_label(sample.label_hw, size), info))
    row = _beside(panels)
    return np.concatenate([_text(f"{title}  {width}x{height}", row.shape[1]), row])


def _flow_colours(flow_hw2: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Hue by direction, saturation by length relative to the picture's 99th percentile."""
    length = np.hypot(flow_hw2[..., 0], flow_hw2[..., 1])
    hue = (np.arctan2(flow_hw2[..., 1], flow_hw2[..., 0]) / (2 * np.pi) + 0.5) * 255
    saturation = np.clip(length / max(float(np.percentile(length, 99)), 1e-6), 0, 1) * 255
    hsv = np.dstack([hue, saturation, np.full_like(hue, 255)]).astype(np.uint8)
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


def _legend(info: DatasetInfo, height: int) -> NDArray[np.uint8]:
    """Swatches and names, in as many columns as the height requires."""
    a_column = max(1, height // LINE)
    entries = [*zip(info.classes, info.palette, strict=True), ("no class: hatched", (255, 255, 255))]
    image = Image.new("RGB", (LEGEND * -(-len(entries) // a_column), height), "white")
    draw = ImageDraw.Draw(image)
    for place, (name, colour) in enumerate(entries):
        x, y = place // a_column * LEGEND, place % a_column * LINE
        draw.rectangle((x, y + 2, x + 18, y + LINE - 2), fill=tuple(colour), outline="black")
        draw.text((x + 24, y + 2), _latin(name), fill="black", font=_font())
    return np.asarray(image)


def _text(text: str, width: int) -> NDArray[np.uint8]:
    image = Image.new("RGB", (width, LINE), "white")
    ImageDraw.Draw(image).text((2, 2), _latin(text), fill="black", font=_font())
    return np.asarray(image)


def _latin(text: str) -> str:
    """`text` in Latin-1, the only letters in Pillow's own font."""
    return text.encode("latin-1", "replace").decode("latin-1")


def _font() -> Any:
    return ImageFont.load_default()


def _beside(panels: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Panels of any size side by side on white, with a gap after each."""
    height = max(panel.shape[0] for panel in panels)
    padded = [np.pad(p, ((0, height - p.shape[0]), (0, GAP), (0, 0)), constant_values=255) for p in panels]
    return np.concatenate(padded, axis=1)


def _below(rows: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(r, ((0, GAP), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    return np.concatenate(padded)
