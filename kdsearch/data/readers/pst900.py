"""PST900: RGB-thermal images of underground search and rescue, 1280x720 (Shivakumar et al., ICRA 2020).

The official layout: `train/` and `test/`, each with `rgb/NAME.png`, `thermal/NAME.png` of 8 bits and
`labels/NAME.png` with ids 0..4. The official `test` images are `val` here: the set has no other split.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kdsearch.data.info import RGB_MEAN, RGB_STD, THERMAL_MEAN, THERMAL_STD, DatasetInfo
from kdsearch.data.readers.pairs import Pair, PairReader, Share, pair_files

INFO = DatasetInfo(
    name="pst900",
    classes=("background", "fire extinguisher", "backpack", "hand drill", "survivor"),
    palette=((0, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 255)),
    channels=4,
    mean=(*RGB_MEAN, THERMAL_MEAN),
    std=(*RGB_STD, THERMAL_STD),
)


class PST900(PairReader):
    """Reader of PST900 at `path`, the folder `PST900_RGBT_Dataset`. Class 0 counts as a class.

    The set has no validation split: `val` is its test set, unless a `holdout` of train is given, see `hold_out`.
    """

    def __init__(self, path: Path, holdout: Share = 0.0) -> None:
        pairs = {"train": _split(path / "train"), "val": _split(path / "test")}
        colours = {colour: i for i, colour in enumerate(INFO.palette)}
        super().__init__(path, INFO, pairs, colours=colours, holdout=holdout)


def _split(folder: Path) -> dict[str, Pair]:
    pairs = pair_files(folder / "rgb", folder / "labels", image_ends=(".png",))
    return {name: replace(pair, thermal=folder / "thermal" / f"{name}.png") for name, pair in pairs.items()}
