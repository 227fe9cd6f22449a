"""Any folder of images and masks, described by a small `classes.yaml`.

    classes: [road, {name: car, colour: [0, 0, 142]}, {name: person, id: 7}]
    ignore: [0]        # mask values or colours without a class; 255 too, unless it is the id of a class
    channels: 4        # RGB and thermal; 3 when left out

A mask has one channel, or shows the `colour` of each class. In a mask of one channel a class is the value `id`, or its
place in the list, counted from 0. Splits are the folders `images/train/`, `images/val/`, `labels/train/` and
`labels/val/`; or, where `train.txt` and `val.txt` list names, `images/` and `labels/`. A split `test` lies beside them
in the same form. Thermal images lie under `thermal/` like the images; without that folder the images have 4 channels
themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, PositiveInt, Tag, ValidationError

from kdsearch.config.space.yaml_tree import parse_yaml
from kdsearch.config.strict import Listed, Strict
from kdsearch.data.info import IGNORE_INDEX, RGB_MEAN, RGB_STD, THERMAL_MEAN, THERMAL_STD, DatasetInfo
from kdsearch.data.mask_files import Colour
from kdsearch.data.optical_flow import FlowName, open_flow
from kdsearch.data.reader import SPLITS
from kdsearch.data.readers.names import FilesByName
from kdsearch.data.readers.pairs import Pair, PairReader, Share, colour_map, pair_files, pair_frames
from kdsearch.errors import UserError

Byte = Annotated[int, Field(ge=0, le=255)]
RGB = Listed[tuple[Byte, Byte, Byte]]


def _value_or_colour(value: Any) -> str:
    return "colour" if isinstance(value, list | tuple) else "value"


Ignored = Annotated[Annotated[Byte, Tag("value")] | Annotated[RGB, Tag("colour")], Discriminator(_value_or_colour)]


class ClassEntry(Strict):
    """A class: its name, its mask value (its place in the list when not given), its colour in masks and pictures."""

    name: Annotated[str, Field(min_length=1)]
    id: Byte | None = None
    colour: RGB | None = None


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Classes(Strict):
    """The content of `classes.yaml`."""

    classes: Annotated[
        Listed[tuple[Annotated[ClassEntry, BeforeValidator(_named)], ...]], Field(min_length=2, max_length=255)
    ]
    ignore: Listed[tuple[Ignored, ...]] = ()
    channels: Literal[3, 4] = 3

    def ids(self) -> Iterator[tuple[int, int]]:
        """Mask value and class id, class by class."""
        for place, entry in enumerate(self.classes):
            yield (place if entry.id is None else entry.id), place


class Folder(PairReader):
    """Reader of `path`. With a `flow` the names are SEQUENCE_NUMBER, and next frames are found as in CamVid.

    The split `test` is there where the set has one; where not, `holdout` makes one, see `hold_out`.
    """

    def __init__(
        self,
        path: Path,
        flow: FlowName = "none",
        gap: PositiveInt = 1,
        flow_weights: str | None = None,
        holdout: Share = 0.0,
    ) -> None:
        estimator = open_flow(path, flow, flow_weights, gap)
        file = path / "classes.yaml"
        classes = _read_classes(file)
        pairs = {split: _split(path, split, classes.channels) for split in SPLITS}
        if estimator is not None:
            pairs = {split: pair_frames(pairs[split], gap) for split in SPLITS}

        def test() -> dict[str, Pair]:
            found = _split(path, "test", classes.channels)
            return found if estimator is None else pair_frames(found, gap)

        lists = (path / "train.txt").exists()
        has_test = (path / "test.txt").exists() if lists else (path / "images" / "test").is_dir()
        if has_test and holdout:
            raise UserError(f"{path} has a test split of its own; leave the option holdout out")
        if all(value != IGNORE_INDEX for value, _ in classes.ids()) and IGNORE_INDEX not in classes.ignore:
            self.doubt = f"if 255 is a class, say so in {file} ({{name: thing, id: 255}}), if not, list it under ignore"
        super().__init__(
            path, _info(classes), pairs, ids=_ids(classes, file), colours=_colours(classes, file), source=str(file),
            one_namespace=False, flow=estimator, facts=(gap,), tests={"test": test} if has_test else {},
            holdout=holdout,
        )  # fmt: skip


def _read_classes(file: Path) -> Classes:
    try:
        tree = parse_yaml(file.read_bytes(), lambda line: f"{file}:{line}")
    except FileNotFoundError:
        raise UserError(f"{file} does not exist; write one, such as: classes: [road, car, person]") from None
    try:
        return Classes.model_validate(tree, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{file}: {place}: {first['msg']}") from None


def _info(classes: Classes) -> DatasetInfo:
    thermal = classes.channels == 4
    given, count = {entry.colour for entry in classes.classes}, len(classes.classes)
    free = (colour for colour in colour_map(512)[count:] if colour not in given)
    default = [next(free) if colour in given else colour for colour in colour_map(count)]
    return DatasetInfo(
        name="folder",
        classes=tuple(entry.name for entry in classes.classes),
        palette=tuple(entry.colour or colour for entry, colour in zip(classes.classes, default, strict=True)),
        channels=classes.channels,
        mean=(*RGB_MEAN, THERMAL_MEAN) if thermal else RGB_MEAN,
        std=(*RGB_STD, THERMAL_STD) if thermal else RGB_STD,
    )


def _ids(classes: Classes, file: Path) -> dict[int, int]:
    """The class id, or `IGNORE_INDEX`, of each mask value."""
    ids = {value: IGNORE_INDEX for value in classes.ignore if isinstance(value, int)}
    names: set[str] = set()
    for value, place in classes.ids():
        name = classes.classes[place].name
        if value in ids:
            other = "ignored" if ids[value] == IGNORE_INDEX else f"'{classes.classes[ids[value]].name}'"
            raise UserError(f"{file}: mask value {value} is '{name}' and {other} at once; correct id or ignore")
        if name in names:
            raise UserError(f"{file} names '{name}' twice; give each class a name of its own")
        ids[value] = place
        names.add(name)
    return {255: IGNORE_INDEX, **ids}


def _colours(classes: Classes, file: Path) -> dict[Colour, int]:
    """The class id, or `IGNORE_INDEX`, of each colour that the file gives."""
    colours = {value: IGNORE_INDEX for value in classes.ignore if not isinstance(value, int)}
    for place, entry in enumerate(classes.classes):
        if entry.colour in colours:
            other = colours[entry.colour]
            whose = "ignored" if other == IGNORE_INDEX else f"of '{classes.classes[other].name}'"
            raise UserError(
                f"{file}: the colour {list(entry.colour)} is of '{entry.name}' and {whose} at once; correct one"
            )
        if entry.colour is not None:
            colours[entry.colour] = place
    return colours


def _split(path: Path, split: str, channels: int) -> dict[str, Pair]:
    """The pairs of a split, from lists where both are there and from folders where none is."""
    lists = [(path / f"{name}.txt").exists() for name in SPLITS]
    if any(lists) and not all(lists):
        raise UserError(f"{path} needs both of train.txt and val.txt, or none of them")
    below, listed = ("", path / f"{split}.txt") if all(lists) else (split, None)
    pairs = pair_files(path / "images" / below, path / "labels" / below, listed)
    thermal = path / "thermal" / below
    if channels == 3 or not (path / "thermal").is_dir():
        return pairs
    heat = FilesByName(thermal)
    return {
        name: replace(pair, thermal=heat.get(heat.real(name) or name) or thermal / f"{name}.png")
        for name, pair in pairs.items()
    }
