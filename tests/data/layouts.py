"""Small folders in the official layouts of the data sets, drawn at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.data.reader import Reader
from kdsearch.data.registry import open_reader

SIZE = (24, 32)


def opened(name: str, path: Path, **options) -> Reader:
    return open_reader(DataConfig(name=name, path=str(path), size=SIZE, options=options))


def write_image(path: Path, seed: int = 0, size=SIZE, channels: int = 3) -> None:
    """A random image; `channels` 1 is grey."""
    shape = size if channels == 1 else (*size, channels)
    save(path, np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def write_label(path: Path, values, seed: int = 0, size=SIZE) -> None:
    """A label of random pixels out of `values`, all of which occur."""
    values = np.array(list(values), np.uint8)
    label = np.random.default_rng(seed).choice(values, size)
    label.reshape(-1)[: len(values)] = values[: label.size]
    save(path, label)


def save(path: Path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


CAMVID_NAMES = {
    "train": ["0001TP_006690", "0001TP_006720", "0006R0_f00930", "0006R0_f00960", "0006R0_f00990"],
    "val": ["0016E5_07959", "0016E5_07961", "0016E5_07963", "0016E5_10000"],
}


def write_camvid(root: Path, lists: str | None = None, end: str = ".png") -> Path:
    """CamVid in SegNet's layout; `lists` is "names", "paths" or None for folders alone."""
    for split, names in CAMVID_NAMES.items():
        for seed, name in enumerate(names):
            write_image(root / split / f"{name}{end}", seed)
            write_label(root / f"{split}annot" / f"{name}.png", range(12), seed)
        if lists is not None:
            line = {"names": "{0}", "paths": "/SegNet/CamVid/{1}/{0}.png /SegNet/CamVid/{1}annot/{0}.png"}[lists]
            (root / f"{split}.txt").write_text("".join(line.format(name, split) + "\n" for name in names))
    return root


def write_mfnet(root, train=4, val=2, size=(24, 32)):
    """A small folder in MFNet's layout; half of the names end in D, half in N."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    names = [f"{i:05d}{'DN'[i % 2]}" for i in range(train + val)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (*size, 4), dtype=np.uint8), "RGBA").save(root / "images" / f"{name}.png")
        Image.fromarray(rng.integers(0, 9, size, dtype=np.uint8)).save(root / "labels" / f"{name}.png")
    for split, own in (("train", names[:train]), ("val", names[train:])):
        for suffix, end in (("", ""), ("_day", "D"), ("_night", "N")):
            lines = [name for name in own if name.endswith(end)]
            (root / f"{split}{suffix}.txt").write_text("\n".join(lines) + "\n")
    return root


def write_cityscapes(root: Path, labels: str = "labelIds", frames: int = 0) -> Path:
    """Two cities; `frames` later ones of each labelled image go to leftImg8bit_sequence."""
    values = {"labelIds": [*range(34)], "labelTrainIds": [*range(19), 255]}[labels]
    for split, city in (("train", "aachen"), ("train", "zurich"), ("val", "lindau")):
        for snippet in range(2):
            name = f"{city}_{snippet:06d}_000019"
            write_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", snippet)
            write_label(root / "gtFine" / split / city / f"{name}_gtFine_{labels}.png", values, snippet)
            for later in range(1, frames + 1):
                frame = f"{city}_{snippet:06d}_{19 + later:06d}_leftImg8bit.png"
                write_image(root / "leftImg8bit_sequence" / split / city / frame, 10 * snippet + later)
    return root


def write_voc(root: Path, augmented: bool = True) -> Path:
    lists = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033", "2007_000042"]}
    if augmented:
        lists["trainaug"] = ["2007_000032", "2007_000039", "2008_000008"]
    for seed, name in enumerate(sorted({name for names in lists.values() for name in names})):
        write_image(root / "JPEGImages" / f"{name}.jpg", seed)
        for folder in ("SegmentationClass", "SegmentationClassAug"):
            label = np.random.default_rng(seed).choice(np.array([*range(21), 255], np.uint8), SIZE)
            path = root / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(label, "P")
            image.putpalette([value for colour in range(256) for value in (colour, 0, 255 - colour)])
            image.save(path)
    for name, names in lists.items():
        path = root / "ImageSets" / "Segmentation" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in names))
    return root


def write_ade20k(root: Path) -> Path:
    for split, name in (("training", "ADE_train_0000000{}"), ("validation", "ADE_val_0000000{}")):
        for i in range(1, 4):
            write_image(root / "images" / split / f"{name.format(i)}.jpg", i, channels=1 if i == 3 else 3)
            write_label(root / "annotations" / split / f"{name.format(i)}.png", range(151), i)
    return root


def write_coco_stuff(root: Path) -> Path:
    values = [value for value in range(182) if value not in (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)]
    for split, numbers in (("train2017", (9, 25, 30)), ("val2017", (139, 285))):
        for number in numbers:
            write_image(root / "images" / split / f"{number:012d}.jpg", number, channels=1 if number == 30 else 3)
            write_label(root / "annotations" / split / f"{number:012d}.png", [*values, 255], number)
    return root


def write_pst900(root: Path) -> Path:
    for split, names in (("train", ("1", "10", "bag_3")), ("test", ("2", "20"))):
        for seed, name in enumerate(names):
            write_image(root / split / "rgb" / f"{name}.png", seed)
            write_image(root / split / "thermal" / f"{name}.png", seed + 50, channels=1)
            write_label(root / split / "labels" / f"{name}.png", range(5), seed)
    return root


FOLDER_NAMES = {"train": ["a_1", "a_2", "b_07", "b_8"], "val": ["c_1", "c_2"]}
FOLDER_CLASSES = "classes: [road, {name: car, colour: [0, 0, 142]}, {name: person, id: 7}]\nignore: [3]\n"


def write_folder(root: Path, lists: bool = False, thermal: str = "none", classes: str = FOLDER_CLASSES) -> Path:
    """`thermal` is "none", "inside" the images, or in files "beside" them."""
    channels = "" if thermal == "none" else "channels: 4\n"
    for split, names in FOLDER_NAMES.items():
        for seed, name in enumerate(names):
            place = "" if lists else split
            write_image(root / "images" / place / f"{name}.png", seed, channels=4 if thermal == "inside" else 3)
            write_label(root / "labels" / place / f"{name}.png", [0, 1, 7, 3, 255], seed)
            if thermal == "beside":
                write_image(root / "thermal" / place / f"{name}.png", seed + 50, channels=1)
        if lists:
            (root / f"{split}.txt").write_text("".join(f"{name}.png\n" for name in names))
    (root / "classes.yaml").write_text(classes + channels)
    return root


def pixels(path):
    return np.array(Image.open(path))
