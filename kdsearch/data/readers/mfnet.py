"""MFNet: RGB-thermal street scenes (Ha et al., IROS 2017).

The official layout: `images/NAME.png` with 4 channels (RGB, thermal), `labels/NAME.png` with ids 0..8, and lists of
names `train.txt`, `val.txt`, also `train_day.txt`, `train_night.txt`, `val_day.txt`, `val_night.txt`. Half of
`train.txt` are names of mirrored copies (`NAME_flip`), which the download does not hold.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from kdsearch.data.info import RGB_MEAN, RGB_STD, THERMAL_MEAN, THERMAL_STD, DatasetInfo
from kdsearch.data.reader import SPLITS
from kdsearch.data.readers.pairs import Pair, PairReader, pair_files

INFO = DatasetInfo(
    name="mfnet",
    classes=("unlabelled", "car", "person", "bike", "curve", "car stop", "guardrail", "color cone", "bump"),
    palette=((0, 0, 0), (64, 0, 128), (64, 64, 0), (0, 128, 192), (0, 0, 192), (128, 128, 0), (64, 64, 128),
             (192, 128, 128), (192, 64, 0)),
    channels=4,
    mean=(*RGB_MEAN, THERMAL_MEAN),
    std=(*RGB_STD, THERMAL_STD),
)  # fmt: skip

_FLIP = "_flip"


class MFNet(PairReader):
    """Reader of MFNet at `path`; `subset` keeps the images taken by day or by night. Class 0 counts as a class.

    The splits `test`, `test_day` and `test_night` are there where their lists are.
    """

    def __init__(self, path: Path, subset: Literal["all", "day", "night"] = "all") -> None:
        suffix = "" if subset == "all" else f"_{subset}"

        def listed(name: str) -> dict[str, Pair]:
            return pair_files(path / "images", path / "labels", path / f"{name}.txt", image_ends=(".png",))

        pairs = {split: listed(f"{split}{suffix}") for split in SPLITS}
        notes = []
        for split in SPLITS:
            unmade = [name for name in pairs[split] if _is_unmade(name, pairs[split])]
            for name in unmade:
                del pairs[split][name]
            if unmade:
                notes.append(
                    f"{path / f'{split}{suffix}.txt'}: left out {len(unmade)} names such as {unmade[0]}: they are "
                    "mirrored copies, which MFNet's make_flip.py would write; kdsearch mirrors training images itself"
                )
        names = ("test", "test_day", "test_night") if subset == "all" else (f"test{suffix}",)
        tests = {name: partial(listed, name) for name in names if (path / f"{name}.txt").exists()}
        colours = {colour: i for i, colour in enumerate(INFO.palette)}
        super().__init__(path, INFO, pairs, colours=colours, notes=notes, tests=tests)


def _is_unmade(name: str, pairs: dict[str, Pair]) -> bool:
    """Whether a name is that of a mirrored copy which nobody has written."""
    original = name.removesuffix(_FLIP)
    return original != name and original in pairs and not pairs[name].image.exists()
