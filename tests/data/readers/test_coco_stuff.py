"""COCO-Stuff: class ids."""

from __future__ import annotations

import pytest

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.errors import UserError
from tests.data.layouts import opened, pixels, write_coco_stuff, write_label


def test_coco_stuff_closes_the_gaps_between_ids(tmp_path):
    folder = write_coco_stuff(tmp_path / "set")
    reader = opened("coco_stuff", folder)
    raw = pixels(folder / "annotations/val2017/000000000139.png")
    label = reader.read("val", "000000000139").label_hw
    names = reader.info.classes
    assert len(names) == 171
    # values are COCO's category ids less one: 18 dog, 67 dining table, 90 toothbrush, 92 banner, 182 wood
    for category, name in {
        1: "person",
        18: "dog",
        67: "dining table",
        90: "toothbrush",
        92: "banner",
        182: "wood",
    }.items():
        assert set(label[raw == category - 1]) == {names.index(name)}
    assert set(label[raw == 255]) == {IGNORE_INDEX}
    write_label(folder / "annotations/val2017/000000000139.png", [0, 11])
    with pytest.raises(UserError, match=r"139\.png: 11 is no label value of 'coco_stuff'"):
        reader.read("val", "000000000139")
