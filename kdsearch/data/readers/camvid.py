"""CamVid: driving video with 11 classes (Brostow et al., Pattern Recognition Letters 2009).

The layout of SegNet's release: `train/`, `trainannot/`, `val/`, `valannot/` with images and 8-bit labels of ids 0..10,
and 11 for pixels without a class. Lists `train.txt` and `val.txt`, of names or of paths of image and label, are used
if they exist; without them a split is the content of its folders. `test/`, `testannot/` and `test.txt` likewise, where
they are there.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import PositiveInt

from kdsearch.data.info import IGNORE_INDEX, RGB_MEAN, RGB_STD, DatasetInfo
from kdsearch.data.optical_flow import FlowName, open_flow
from kdsearch.data.reader import SPLITS
from kdsearch.data.readers.pairs import Pair, PairReader, pair_files, pair_frames

INFO = DatasetInfo(
    name="camvid",
    classes=("sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian",
             "bicyclist"),
    palette=((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
             (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
    channels=3,
    mean=RGB_MEAN,
    std=RGB_STD,
)  # fmt: skip


class CamVid(PairReader):
    """Reader of CamVid at `path`.

    With a `flow` (see `optical_flow`) samples have a next frame: the one `gap` listed frames later in their sequence,
    and for the last `gap` frames of a sequence the one `gap` before. The part of a name before its last underscore is
    the sequence, the number after it the order. Frames of `train` are a second apart in the usual release, those of
    `val` 1/15 s.
    """

    def __init__(
        self, path: Path, flow: FlowName = "none", gap: PositiveInt = 1, flow_weights: str | None = None
    ) -> None:
        estimator = open_flow(path, flow, flow_weights, gap)
        pairs = {split: _split(path, split) for split in SPLITS}
        if estimator is not None:
            pairs = {split: pair_frames(pairs[split], gap) for split in SPLITS}
        ids = {**{i: i for i in range(INFO.num_classes)}, 11: IGNORE_INDEX}
        colours = {**{colour: i for i, colour in enumerate(INFO.palette)}, (0, 0, 0): IGNORE_INDEX}

        def test() -> dict[str, Pair]:
            return _split(path, "test") if estimator is None else pair_frames(_split(path, "test"), gap)

        tests = {"test": test} if (path / "test").is_dir() else {}
        super().__init__(path, INFO, pairs, ids=ids, colours=colours, flow=estimator, facts=(gap,), tests=tests)


def _split(path: Path, split: str) -> dict[str, Pair]:
    listed = path / f"{split}.txt"
    return pair_files(path / split, path / f"{split}annot", listed if listed.exists() else None)
