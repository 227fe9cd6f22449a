"""MFNet: RGB-thermal street scenes (Ha et al., IROS 2017).

The official layout: `images/NAME.png` with 4 channels (RGB, thermal), `labels/NAME.png` with ids 0..8, and lists of
names `train.txt`, `val.txt`, also `train_day.txt`, `train_night.txt`, `val_day.txt`, `val_night.txt`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from kdsearch.data.images import read_image
from kdsearch.data.info import RGB_MEAN, RGB_STD, THERMAL_MEAN, THERMAL_STD, DatasetInfo
from kdsearch.data.reader import SPLITS, Sample, check_sample, check_split, files_fingerprint
from kdsearch.errors import UserError

INFO = DatasetInfo(
    name="mfnet",
    classes=("unlabelled", "car", "person", "bike", "curve", "car stop", "guardrail", "color cone", "bump"),
    palette=((0, 0, 0), (64, 0, 128), (64, 64, 0), (0, 128, 192), (0, 0, 192), (128, 128, 0), (64, 64, 128),
             (192, 128, 128), (192, 64, 0)),
    channels=4,
    mean=(*RGB_MEAN, THERMAL_MEAN),
    std=(*RGB_STD, THERMAL_STD),
)  # fmt: skip


class MFNet:
    """Reader of MFNet at `path`; `subset` keeps the images taken by day or by night. Class 0 counts as a class."""

    info = INFO

    def __init__(self, path: Path, subset: Literal["all", "day", "night"] = "all") -> None:
        self.path, self.subset = path, subset
        self._keys = {split: self._read_list(split) for split in SPLITS}

    def keys(self, split: str) -> list[str]:
        check_split(split)
        return list(self._keys[split])

    def read(self, split: str, key: str) -> Sample:
        check_split(split)
        image_path, label_path = self._files(key)
        for path, other in ((image_path, label_path), (label_path, image_path)):
            if other.exists() and not path.exists():
                raise UserError(f"{other} has no {path}; add the file, or remove '{key}' from the lists")
        image, label = read_image(image_path), read_image(label_path)
        if image.ndim != 3 or image.shape[2] != 4:
            channels = 1 if image.ndim == 2 else image.shape[2]
            raise UserError(f"{image_path} has {channels} channels, MFNet's images have 4 (RGB and thermal)")
        if label.ndim != 2:
            raise UserError(f"{label_path} has {label.shape[2]} channels; use a one-channel image of class ids 0..8")
        sample = Sample(image, label)
        check_sample(sample, INFO, str(label_path))
        return sample

    def fingerprint(self) -> str:
        files = [file for split in SPLITS for key in self._keys[split] for file in self._files(key)]
        return files_fingerprint(self.path, files, self._keys, INFO)

    def _files(self, key: str) -> tuple[Path, Path]:
        return self.path / "images" / f"{key}.png", self.path / "labels" / f"{key}.png"

    def _read_list(self, split: str) -> list[str]:
        suffix = "" if self.subset == "all" else f"_{self.subset}"
        path = self.path / f"{split}{suffix}.txt"
        try:
            keys = path.read_text().split()
        except FileNotFoundError:
            raise UserError(f"{path} does not exist; the folder needs MFNet's lists of names beside images/") from None
        if not keys:
            raise UserError(f"{path} names no image; write one name a line, without .png")
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise UserError(f"{path} names '{twice}' more than once; remove the repeated lines")
        return keys
