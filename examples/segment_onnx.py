"""Segment every image of a folder with an exported student's ONNX file: numpy, Pillow and onnxruntime are enough.

    python -m kdsearch.export runs/NAME --formats onnx --out student
    python examples/segment_onnx.py student images --out segmented

For each image it writes NAME_classes.png: class ids, at the image's own size. It follows `preprocess.json`; copy it to
where neither torch nor kdsearch is installed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path, help="folder with model.onnx and preprocess.json")
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args()

    about = json.loads((options.student / "preprocess.json").read_text())
    session = onnxruntime.InferenceSession(options.student / "model.onnx", providers=["CPUExecutionProvider"])
    options.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(options.images.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        image = Image.open(path)
        image_hwc = np.asarray(image if len(about["channels"]) == 4 else image.convert("RGB"))
        logits_khw = session.run(None, {"image": prepare(image_hwc, about)})[0][0]
        classes_hw = resize_bilinear(logits_khw, image_hwc.shape[:2]).argmax(0).astype(np.uint8)
        Image.fromarray(classes_hw).save(options.out / f"{path.stem}_classes.png")
        print(f"{path.name}: {', '.join(about['classes'][index] for index in np.unique(classes_hw))}")


def prepare(image_hwc: np.ndarray, about: dict) -> np.ndarray:
    """A uint8 image `[H, W, C]` as the network's input `[1, C, height, width]`."""
    height, width = about["size"]
    if image_hwc.shape[:2] != (height, width):
        channels = [Image.fromarray(image_hwc[..., c]) for c in range(image_hwc.shape[2])]
        image_hwc = np.dstack([channel.resize((width, height), Image.Resampling.BILINEAR) for channel in channels])
    normalised_hwc = (image_hwc * np.float32(about["scale"]) - np.float32(about["mean"])) / np.float32(about["std"])
    return normalised_hwc.transpose(2, 0, 1)[None]


def resize_bilinear(map_khw: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with the corners aligned, from `[K, h, w]` to `[K, *size]`."""
    for axis, length in ((1, size[0]), (2, size[1])):
        position = np.linspace(0, map_khw.shape[axis] - 1, length, dtype=np.float32)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, map_khw.shape[axis] - 1)
        shape = [1, 1, 1]
        shape[axis] = length
        share = (position - low).reshape(shape)
        map_khw = map_khw.take(low, axis) * (1 - share) + map_khw.take(high, axis) * share
    return map_khw


if __name__ == "__main__":
    main()
