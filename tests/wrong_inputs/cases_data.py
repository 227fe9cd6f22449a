"""Data sets as people have them, where a command cannot use them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.layouts import write_camvid, write_cityscapes, write_folder, write_mfnet
from tests.wrong_inputs.case import Case

TWO = "classes: [background, thing]\n"
PICTURE = "--picture {folder}/../seen.png"
CHECK, BUILD = f"data check folder={{folder}}/set {PICTURE}", "data build folder={folder}/set --size 16 16"
TRIAL = """data: {name: folder, path: set, size: [32, 64]}
student: {arch: fpn, encoder: tu-mobilenetv3_small_050}
train: {epochs: 1, batch_size: 2}
"""


def label(values: tuple[int, ...]) -> np.ndarray:
    """A mask of upright stripes."""
    return np.array(values, np.uint8).repeat(16)[None].repeat(32, 0)


def masks(save: Callable[[Path], None], classes: str = TWO) -> Callable[[Path], None]:
    """A set whose masks `save` writes, under names that end with .png."""

    def prepare(folder: Path) -> None:
        for split, count in (("train", 2), ("val", 1)):
            for kind in ("images", "labels"):
                (folder / "set" / kind / split).mkdir(parents=True)
            for index in range(count):
                rng = np.random.default_rng([count, index])
                image = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(image).save(folder / "set" / "images" / split / f"{index}.png")
                save(folder / "set" / "labels" / split / f"{index}.png")
        (folder / "set" / "classes.yaml").write_text(classes)

    return prepare


def of(*values: int) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(label(values)).save(path)


def coloured(path: Path) -> None:
    Image.fromarray(np.dstack([label((0, 9)), label((0, 0)), label((7, 0))])).save(path)


def lossy(path: Path) -> None:
    Image.fromarray(label((0, 1))).save(path, "JPEG")


def deep(path: Path) -> None:
    Image.fromarray(label((0, 1)).astype(np.uint16) * 1000).save(path)


def clear(path: Path) -> None:
    Image.fromarray(np.dstack([label((0, 1))] * 4)).save(path)


def listed(train: str | bytes, val: str = "c_1\n") -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        write_folder(folder / "set", lists=True)
        (folder / "set" / "train.txt").write_bytes(train if isinstance(train, bytes) else train.encode())
        (folder / "set" / "val.txt").write_text(val)

    return prepare


def with_trial(folder: Path) -> None:
    masks(of(0, 255))(folder)
    (folder / "trial.yaml").write_text(TRIAL)
    (folder / "space.yaml").write_text(f"name: tiny\n{TRIAL}search: {{trials: 1}}\n")


def copies(folder: Path) -> None:
    write_folder(folder / "set")
    Image.new("RGB", (32, 24)).save(folder / "set" / "images" / "train" / "a_1.jpg")


def repeated(folder: Path) -> None:
    root = write_camvid(folder / "set")
    for place in ("", "annot"):
        (root / f"val{place}" / "0001TP_006690.png").write_bytes(
            (root / f"train{place}/0001TP_006690.png").read_bytes()
        )


def no_flips(folder: Path) -> None:
    root = write_mfnet(folder / "set")
    (root / "train.txt").write_text("00000D\n00001N_flip\n")


SET = "cannot be trained: every pixel of train that has a class is 'background'.* id: 255"
CASES = [
    Case("masks-of-255-check", CHECK, f"{SET}", masks(of(0, 255)), status=1),
    Case("masks-of-255-build", BUILD, f"{SET}", masks(of(0, 255)), status=1),
    Case("masks-of-255-train", "train trial.yaml --out student", f"{SET}", with_trial),
    Case(
        "masks-of-one-class", CHECK, "every pixel of train .*; add images of other classes", masks(of(0, 0)), status=1
    ),
    Case(
        "masks-of-255-alone",
        BUILD,
        "no pixel of train or val has a class; if 255 is a class",
        masks(of(255, 255)),
        status=1,
    ),
    Case(
        "id-255-ignored-too",
        CHECK,
        "255 is 'thing' and ignored at once; correct id or ignore",
        masks(of(0, 255), "classes: [a, {name: thing, id: 255}]\nignore: [255]\n"),
    ),
    Case(
        "colour-of-two-classes",
        CHECK,
        r"the colour \[1, 2, 3\] is of 'b' and of 'a' at once; correct one",
        masks(of(0, 1), "classes: [{name: a, colour: [1, 2, 3]}, {name: b, colour: [1, 2, 3]}]\n"),
    ),
    Case("ignored-colour-of-two", CHECK, r"classes\.yaml: ignore\.0", masks(of(0, 1), TWO + "ignore: [[1, 2]]\n")),
    Case(
        "colour-masks",
        BUILD,
        "3 channels; use a one-channel image of class ids, or give each class its colour in",
        masks(coloured),
        status=1,
    ),
    Case(
        "colour-unknown",
        BUILD,
        r"give these colours to classes or to ignore in .*: \(9, 0, 0\) of 512 pixels",
        masks(coloured, "classes: [{name: a, colour: [0, 0, 7]}, b]\n"),
        status=1,
    ),
    Case(
        "lossy-masks",
        BUILD,
        "is a JPEG image, whose compression changes the values of masks; make it anew as PNG",
        masks(lossy),
        status=1,
    ),
    Case("deep-masks", BUILD, "has I;16 pixels; save it with 8 bits: 1000 is no label value", masks(deep), status=1),
    Case(
        "clear-masks", BUILD, "has transparent pixels, whose class is unknown; save it as PNG", masks(clear), status=1
    ),
    Case(
        "values-of-three",
        BUILD,
        "128 is no label value of 'folder'.*; check that .* or name the value in .*classes.yaml",
        masks(of(0, 128, 255), "classes: [a, {name: b, id: 255}]\n"),
        status=1,
    ),
    Case("list-of-bytes", CHECK, r"train\.txt is not a text file; write one name per line", listed(b"\x89PNG\0\0\0\r")),
    Case("list-of-a-long-line", CHECK, r"train\.txt: 'n{40}' is no file name; write one", listed("n" * 300)),
    Case(
        "list-repeats", CHECK, r"names 'a_1' more than once; remove the repeated lines", listed("a_1.png\nx/a_1.jpg\n")
    ),
    Case("list-of-comments", CHECK, "names no image; write one name per line", listed("# a_1\n")),
    Case("lists-share-a-name", CHECK, "'c_1' is in train and in val; remove it from one of them", listed("c_1\na_1\n")),
    Case(
        "list-of-missing", CHECK, r"photo 3\.png; add the file, or remove 'photo 3'", listed("a_1\nphoto 3\n"), status=1
    ),
    Case("converted-copies", CHECK, r"a_1\.jpg and a_1\.png have the same name; remove one of them", copies),
    Case(
        "camvid-name-twice",
        f"data check camvid={{folder}}/set {PICTURE}",
        "is in train and in val; remove it",
        repeated,
    ),
    Case(
        "cityscapes-train-ids",
        f"data check cityscapes={{folder}}/set {PICTURE}",
        r"but those of labelTrainIds; add --set data\.options\.labels=labelTrainIds",
        lambda folder: write_cityscapes(folder / "set", "labelTrainIds") and None,
    ),
    Case(
        "mfnet-flip-alone",
        f"data check mfnet={{folder}}/set {PICTURE}",
        r"00001N_flip\.png; add the file",
        no_flips,
        status=1,
    ),
]
