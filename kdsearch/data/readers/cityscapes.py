"""Cityscapes: street scenes of 2048x1024 with 19 classes (Cordts et al., CVPR 2016).

The official layout: `leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png` and `gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png`,
or `..._labelTrainIds.png` where the official scripts wrote them; for next frames also
`leftImg8bit_sequence/SPLIT/CITY/`, of which the labelled images are the twentieth of 30 frames each.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from kdsearch.data.info import IGNORE_INDEX, RGB_MEAN, RGB_STD, DatasetInfo
from kdsearch.data.optical_flow import FlowName, open_flow
from kdsearch.data.reader import SPLITS
from kdsearch.data.readers.pairs import Pair, PairReader, Share, pair_files
from kdsearch.errors import UserError

INFO = DatasetInfo(
    name="cityscapes",
    classes=("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
             "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    palette=((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
             (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0),
             (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)),
    channels=3,
    mean=RGB_MEAN,
    std=RGB_STD,
)  # fmt: skip

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The value of each class in `labelIds` files, which hold 0..33; the other values are ignored."""
_IDS = {
    "labelIds": {**dict.fromkeys(range(34), IGNORE_INDEX), **{value: i for i, value in enumerate(LABEL_IDS)}},
    "labelTrainIds": {i: i for i in range(INFO.num_classes)},
}
_IMAGE_END, _LABEL_END = "_leftImg8bit.png", "_gtFine_{}.png"


class Cityscapes(PairReader):
    """Reader of Cityscapes at `path`, from the label files that `labels` names.

    With a `flow` (see `optical_flow`) the next frame is the one `gap` frames later in `leftImg8bit_sequence`, a folder
    in `path` or at the path `sequence`. `holdout`: see `hold_out`; the official test set has no labels.
    """

    def __init__(
        self,
        path: Path,
        labels: Literal["labelIds", "labelTrainIds"] = "labelIds",
        flow: FlowName = "none",
        gap: PositiveInt = 1,
        flow_weights: str | None = None,
        sequence: str | None = None,
        holdout: Share = 0.0,
    ) -> None:
        estimator = open_flow(path, flow, flow_weights, gap)
        if estimator is None and sequence is not None:
            raise UserError("sequence has no effect without next frames; set flow to dis or raft, or remove sequence")
        pairs = {split: _split(path, split, labels) for split in SPLITS}
        if estimator is not None:
            frames = path / Path(sequence or "leftImg8bit_sequence").expanduser()
            if not frames.is_dir():
                raise UserError(f"{frames} does not exist; unpack leftImg8bit_sequence there, or set sequence")
            pairs = {split: _with_next(pairs[split], frames / split, gap) for split in SPLITS}
        ids = {**_IDS[labels], IGNORE_INDEX: IGNORE_INDEX}
        super().__init__(path, INFO, pairs, ids=ids, flow=estimator, facts=(labels, gap), holdout=holdout)


def _split(path: Path, split: str, labels: str) -> dict[str, Pair]:
    places = path / "leftImg8bit" / split, path / "gtFine" / split
    ends = _IMAGE_END, _LABEL_END.format(labels)
    # Folders without such files are no cities: those of notebooks, archives and the like.
    files = [file for place, end in zip(places, ends, strict=True) for file in place.glob(f"*/*{end}")]
    cities = {file.parent.name for file in files if not file.name.startswith(".")}
    if not cities:
        raise UserError(f"{places[0]} holds no folders of cities; give the folder of leftImg8bit/ and gtFine/")
    other = next(name for name in _IDS if name != labels)
    if not any(places[1].glob(f"*/*{ends[1]}")) and any(places[1].glob(f"*/*{_LABEL_END.format(other)}")):
        raise UserError(
            f"{places[1] / min(cities)} holds no file that ends with {ends[1]}, but those of {other}; "
            f"add --set data.options.labels={other}"
        )
    pairs: dict[str, Pair] = {}
    for city in sorted(cities):
        images, masks = (place / city for place in places)
        pairs |= pair_files(images, masks, image_ends=(ends[0],), label_ends=(ends[1],))
    return pairs


def _with_next(pairs: dict[str, Pair], frames: Path, gap: int) -> dict[str, Pair]:
    """Keys are CITY_SNIPPET_FRAME, six digits each."""
    following: dict[str, Pair] = {}
    for key, pair in pairs.items():
        snippet, _, frame = key.rpartition("_")
        if not frame.isdecimal():
            raise UserError(
                f"{pair.image} is not named CITY_SNIPPET_FRAME, so its next frame is unknown; set flow: none"
            )
        name = f"{snippet}_{int(frame) + gap:06d}{_IMAGE_END}"
        following[key] = replace(pair, next_image=frames / pair.image.parent.name / name)
    return following
