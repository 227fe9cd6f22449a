"""Labels from which nothing can be learned are refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.data.label_counts import label_problem
from kdsearch.data.store.store import build_store
from kdsearch.errors import UserError

CLASSES = ("road", "car", "tree")


def problem(train: list[int], val: list[int], pixels: int = 100, classes: tuple[str, ...] = CLASSES) -> str | None:
    counts = {"train": np.array(train), "val": np.array(val)}
    return label_problem(classes, counts, {"train": pixels, "val": pixels})


def test_usual_labels_are_accepted() -> None:
    assert problem([50, 30, 10], [50, 30, 10]) is None
    assert problem([50, 45, 0], [50, 45, 0]) is None  # a small part of a set lacks a rare class
    assert problem([50, 10, 0], [50, 0, 10]) is None  # it occurs somewhere


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_one_label(split: str) -> None:
    none, some = [0, 0, 0], [50, 30, 10]
    found = problem(none if split == "train" else some, none if split == "val" else some)
    assert found is not None
    assert f"no pixel of the split {split} has a label" in found


def test_a_class_that_never_occurs_while_much_is_unlabelled() -> None:
    found = problem([50, 25, 0], [50, 25, 0])
    assert found is not None
    assert found.startswith("the class 'tree' never occurs, and 25% of all pixels have no label (255)")


def test_masks_of_0_and_255_for_two_classes() -> None:
    found = problem([98, 0], [99, 0], classes=("background", "crack"))
    assert found is not None
    assert found.startswith("the class 'crack' never occurs, and 2% of all pixels have no label (255)")


def test_an_empty_split() -> None:
    assert label_problem(CLASSES, {"train": np.zeros(3, int)}, {"train": 0}) == (
        "the split train is empty; give it at least one image"
    )


@pytest.mark.parametrize(("split", "value"), [("train", 255), ("val", 255)])
def test_no_store_without_a_label_is_opened(split: str, value: int, tmp_path: Path) -> None:
    for name in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / "set" / kind / name).mkdir(parents=True)
        for index in range(2):
            Image.fromarray(np.full((16, 16, 3), 9, np.uint8)).save(tmp_path / f"set/images/{name}/{name}{index}.png")
            label = np.full((16, 16), value if name == split else 0, np.uint8)
            label[:4] = label[0, 0] or 1
            Image.fromarray(label).save(tmp_path / f"set/labels/{name}/{name}{index}.png")
    (tmp_path / "set/classes.yaml").write_text("classes:\n  - {name: a}\n  - {name: b}\n")
    config = DataConfig(name="folder", path=str(tmp_path / "set"), size=(16, 16))
    for _ in range(2):  # the store is there the second time
        with pytest.raises(UserError, match=f"no pixel of the split {split} has a label"):
            build_store(config, tmp_path / "stores")
