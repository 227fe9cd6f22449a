"""Pascal VOC 2012 with 20 classes and background (Everingham et al., IJCV 2010), and its augmented training set.

The official layout of `VOCdevkit/VOC2012`: `JPEGImages/`, `SegmentationClass/` with palette images of ids 0..20 and 255
along borders, and lists in `ImageSets/Segmentation/`. The augmented set (Hariharan et al., ICCV 2011) adds the list
`trainaug.txt` of 10,582 names and `SegmentationClassAug/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from kdsearch.data.info import IGNORE_INDEX, RGB_MEAN, RGB_STD, DatasetInfo
from kdsearch.data.readers.pairs import PairReader, Share, colour_map, pair_files
from kdsearch.errors import UserError

INFO = DatasetInfo(
    name="voc",
    classes=("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
             "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train",
             "tv monitor"),
    palette=colour_map(21),
    channels=3,
    mean=RGB_MEAN,
    std=RGB_STD,
)  # fmt: skip

_BORDER = colour_map(256)[255]
_LABELS = {"train": "SegmentationClass", "trainaug": "SegmentationClassAug"}


class VOC(PairReader):
    """Reader of VOC at `path`, the folder `VOC2012`.

    `train` names the list of training images: "trainaug" (10,582, the usual one) or "train" (1,464). Validation is on
    the 1,449 images of `val` with VOC's own labels, of which background is a class. `holdout`: see `hold_out`.
    """

    def __init__(self, path: Path, train: Literal["train", "trainaug"] = "trainaug", holdout: Share = 0.0) -> None:
        lists = path / "ImageSets" / "Segmentation"
        if train == "trainaug" and (lists / "train.txt").exists() and not (lists / "trainaug.txt").exists():
            raise UserError(f"{lists / 'trainaug.txt'} does not exist; add the augmented set, or set train: train")
        pairs = {
            split: pair_files(path / "JPEGImages", path / _LABELS[listed], lists / f"{name}.txt", (".jpg",))
            for split, name, listed in (("train", train, train), ("val", "val", "train"))
        }
        ids = {**{i: i for i in range(INFO.num_classes)}, 255: IGNORE_INDEX}
        colours = {**{colour: i for i, colour in enumerate(INFO.palette)}, _BORDER: IGNORE_INDEX}
        super().__init__(path, INFO, pairs, ids=ids, colours=colours, holdout=holdout)
