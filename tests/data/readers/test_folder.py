"""What is special about the reader of any folder: classes.yaml, lists or folders, thermal inside or beside."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.errors import UserError
from tests.data.layouts import FOLDER_NAMES, opened, write_folder


def test_classes_ids_colours_and_ignored_values(tmp_path):
    folder = write_folder(tmp_path / "set")
    reader = opened("folder", folder)
    assert reader.info.classes == ("road", "car", "person")
    assert reader.info.palette[1] == (0, 0, 142)
    raw = np.array(Image.open(folder / "labels/train/b_07.png"))
    label = reader.read("train", "b_07").label_hw
    for value, wanted in {0: 0, 1: 1, 7: 2, 3: IGNORE_INDEX, 255: IGNORE_INDEX}.items():
        assert set(label[raw == value]) == {wanted}


@pytest.mark.parametrize("lists", [False, True])
def test_splits_from_folders_or_lists(tmp_path, lists):
    reader = opened("folder", write_folder(tmp_path / "set", lists))
    assert {split: reader.keys(split) for split in FOLDER_NAMES} == FOLDER_NAMES


@pytest.mark.parametrize("thermal", ["inside", "beside"])
def test_thermal_is_the_fourth_channel(tmp_path, thermal):
    folder = write_folder(tmp_path / "set", thermal=thermal)
    reader = opened("folder", folder)
    assert reader.info.channels == len(reader.info.mean) == 4
    image = reader.read("val", "c_2").image_hwc
    parts = [
        np.array(Image.open(folder / place / "val/c_2.png"))
        for place in ("images", "thermal")[: 1 + (thermal == "beside")]
    ]
    assert np.array_equal(image, np.dstack(parts))


def test_next_frames_take_their_own_thermal(tmp_path):
    folder = write_folder(tmp_path / "set", thermal="beside")
    reader = opened("folder", folder, flow="dis")
    assert np.array_equal(reader.read("train", "b_07").next_image_hwc, reader.read("train", "b_8").image_hwc)
    assert np.array_equal(reader.read("train", "a_2").next_image_hwc, reader.read("train", "a_1").image_hwc)


def test_one_list_alone_is_refused(tmp_path):
    folder = write_folder(tmp_path / "set", lists=True)
    (folder / "val.txt").unlink()
    with pytest.raises(UserError, match=r"both of train\.txt and val\.txt"):
        opened("folder", folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [road]\n", "classes.yaml: classes: "),
        ("classes: [road, car]\ncolours: 3\n", "unknown key"),
        ("classes: [road, {name: car, color: [0, 0, 1]}]\n", "classes.1.color: unknown key. Did you mean 'colour'"),
        ("classes: [road, {name: car, id: '1'}]\n", "classes.1.id"),
        ("classes: [road, {name: car, id: 300}]\n", "classes.1.id"),
        ("classes: [road, {name: car, colour: [0, 0, 256]}]\n", "classes.1.colour.2"),
        ("classes: [road, {name: car, id: 0}]\n", "mask value 0 is 'car' and 'road' at once"),
        ("classes: [road, car]\nignore: [1]\n", "mask value 1 is 'car' and ignored at once"),
        ("classes: [road, road]\n", "names 'road' twice"),
        ("classes: [road, car]\nchannels: 5\n", "channels: "),
        ("- road\n- car\n", "classes.yaml: the file: "),
        ("classes: [road\n", "classes.yaml:2: not valid YAML"),
        ("classes: [road, {name: car, id: 255}]\nignore: [255]\n", "mask value 255 is 'car' and ignored at once"),
        (
            "classes: [{name: a, colour: [1, 2, 3]}, {name: b, colour: [1, 2, 3]}]\n",
            "the colour [1, 2, 3] is of 'b' and of 'a' at once",
        ),
        (
            "classes: [a, {name: b, colour: [1, 2, 3]}]\nignore: [[1, 2, 3]]\n",
            "the colour [1, 2, 3] is of 'b' and ignored",
        ),
        ("classes: [a, b]\nignore: [[1, 2]]\n", "classes.yaml: ignore.0"),
        ("classes: [a, b]\nignore: [300]\n", "classes.yaml: ignore.0"),
        ("classes: [a, b]\nignore: [red]\n", "classes.yaml: ignore.0"),
    ],
)
def test_bad_classes_are_named(tmp_path, text, message):
    with pytest.raises(UserError) as error:
        opened("folder", write_folder(tmp_path / "set", classes=text))
    assert message in str(error.value)
    assert str(tmp_path / "set" / "classes.yaml") in str(error.value)


def test_without_classes(tmp_path):
    folder = write_folder(tmp_path / "set")
    (folder / "classes.yaml").unlink()
    with pytest.raises(UserError, match=r"classes\.yaml does not exist; write one, such as: classes: \[road"):
        opened("folder", folder)


def test_masks_of_colours_are_refused(tmp_path):
    folder = write_folder(tmp_path / "set")
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(folder / "labels/val/c_1.png")
    with pytest.raises(UserError, match=r"c_1\.png has 3 channels; use a one-channel image of class ids"):
        opened("folder", folder).read("val", "c_1")


def test_a_mask_value_that_is_no_class(tmp_path):
    folder = write_folder(tmp_path / "set")
    Image.fromarray(np.full((24, 32), 5, np.uint8)).save(folder / "labels/val/c_1.png")
    with pytest.raises(UserError, match=r"c_1\.png: 5 is no label value"):
        opened("folder", folder).read("val", "c_1")


def test_the_same_names_in_both_folders_are_different_images(tmp_path):
    folder = tmp_path / "set"
    write_folder(folder)
    for kind in ("images", "labels"):
        for name, split in (("a_1", "train"), ("c_1", "val")):
            (folder / kind / split / f"{name}.png").rename(folder / kind / split / "0000.png")
    reader = opened("folder", folder)
    for split in ("train", "val"):
        assert "0000" in reader.keys(split)
        assert [file.parent.name for file in reader.files(split, "0000")] == [split, split]


def test_classes_without_a_colour_get_one_that_no_other_has(tmp_path):
    classes = "classes: [a, b, {name: c, colour: [128, 0, 0]}]\n"
    palette = opened("folder", write_folder(tmp_path / "set", classes=classes)).info.palette
    assert len(set(palette)) == 3
    assert palette[0] == (0, 0, 0)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_classes_of_other_systems(tmp_path, encoding):
    text = "classes: [Straße, b]\r\nignore: [3, 7]\r\n"
    folder = write_folder(tmp_path / "set")
    (folder / "classes.yaml").write_bytes(text.encode(encoding))
    assert opened("folder", folder).info.classes == ("Straße", "b")
