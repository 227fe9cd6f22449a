"""MFNet: RGB-thermal street scenes (Ha et al., IROS 2017).

The official layout: `images/NAME.png` with 4 channels (RGB, thermal), `labels/NAME.png` with ids 0..8, and lists of
names `train.txt`, `val.txt`, also `train_day.txt`, `train_night.txt`, `val_day.txt`, `val_night.txt`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from kdsearch.data.info import RGB_MEAN, RGB_STD, THERMAL_MEAN, THERMAL_STD, DatasetInfo
from kdsearch.data.reader import SPLITS
from kdsearch.data.readers.pairs import Pair, PairReader, read_names

INFO = DatasetInfo(
    name="mfnet",
    classes=("unlabelled", "car", "person", "bike", "curve", "car stop", "guardrail", "color cone", "bump"),
    palette=((0, 0, 0), (64, 0, 128), (64, 64, 0), (0, 128, 192), (0, 0, 192), (128, 128, 0), (64, 64, 128),
             (192, 128, 128), (192, 64, 0)),
    channels=4,
    mean=(*RGB_MEAN, THERMAL_MEAN),
    std=(*RGB_STD, THERMAL_STD),
)  # fmt: skip


class MFNet(PairReader):
    """Reader of MFNet at `path`; `subset` keeps the images taken by day or by night. Class 0 counts as a class."""

    def __init__(self, path: Path, subset: Literal["all", "day", "night"] = "all") -> None:
        suffix = "" if subset == "all" else f"_{subset}"
        pairs = {
            split: {
                name: Pair(path / "images" / f"{name}.png", path / "labels" / f"{name}.png")
                for name in read_names(path / f"{split}{suffix}.txt")
            }
            for split in SPLITS
        }
        super().__init__(path, INFO, pairs)
