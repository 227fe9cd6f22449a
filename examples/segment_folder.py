"""Segment every image of a folder with an exported student.

    python examples/segment_folder.py student images --out segmented

For each image it writes NAME_classes.png (class ids, at the image's own size) and NAME_overlay.png (colours over the
image). A student of RGB-thermal data takes images of four channels, thermal the fourth, as in PNGs with alpha.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import kdsearch

OVERLAY = 0.5
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path, help="folder that kdsearch.export wrote")
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args()

    student = kdsearch.load_student(options.student)
    palette = np.array(student.info.palette)
    options.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(options.images.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        image = Image.open(path)
        image_hwc = np.asarray(image if student.info.channels == 4 else image.convert("RGB"))
        classes_hw = student.segment(image_hwc)
        overlay = image_hwc[..., :3] * (1 - OVERLAY) + palette[classes_hw] * OVERLAY
        Image.fromarray(classes_hw).save(options.out / f"{path.stem}_classes.png")
        Image.fromarray(overlay.astype(np.uint8)).save(options.out / f"{path.stem}_overlay.png")
        found = ", ".join(student.info.classes[index] for index in np.unique(classes_hw))
        print(f"{path.name}: {found}")


if __name__ == "__main__":
    main()
