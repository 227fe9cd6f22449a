"""What a data set holds as a whole, and that `check` and `build` say the same of it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.data.check.checks import check_set
from kdsearch.data.registry import open_reader
from kdsearch.data.store.store import build_store
from kdsearch.errors import UserError
from tests.data.layouts import save, write_folder, write_image

TWO = "classes: [background, thing]\n"


def write(root, labels, classes=TWO, images=None):
    """A set with the given labels, by split; `images` gives seeds."""
    for split, masks in labels.items():
        for index, mask in enumerate(masks):
            seed = images[split][index] if images else 100 * len(split) + index
            write_image(root / "images" / split / f"{index}.png", seed, np.asarray(mask).shape)
            save(root / "labels" / split / f"{index}.png", np.asarray(mask, np.uint8))
    (root / "classes.yaml").write_text(classes)
    return root


def areas(*values, size=(24, 32)):
    """A mask of upright stripes."""
    return np.array(values, np.uint8).repeat(-(-size[1] // len(values)))[None, : size[1]].repeat(size[0], 0)


def asked(folder, tmp_path):
    """The fault and the notes that `check` and `build` give."""
    config = DataConfig(name="folder", path=str(folder), size=(12, 16))
    report = check_set(open_reader(config))
    if report.faults:
        with pytest.raises(UserError) as error:
            build_store(config, tmp_path / "stores")
        assert not (tmp_path / "stores").exists()
        assert str(error.value) == f"data set 'folder' cannot be trained: {report.faults[0]}"
        return report.faults[0], []
    for _ in range(2):  # the second time from the file
        assert build_store(config, tmp_path / "stores").notes == report.notes
    return "", report.notes


def fault(labels, tmp_path, **more):
    return asked(write(tmp_path / "set", labels, **more), tmp_path)[0]


def notes(labels, tmp_path, **more):
    found, said = asked(write(tmp_path / "set", labels, **more), tmp_path)
    assert found == ""
    return said


def test_a_good_set_has_neither(tmp_path):
    assert notes({"train": [areas(0, 1)], "val": [areas(1, 0)]}, tmp_path) == []


def test_masks_of_0_and_255_for_two_classes(tmp_path):
    said = fault({"train": [areas(0, 255)], "val": [areas(0, 255)]}, tmp_path)
    assert "every pixel of train that has a class is 'background', while 50% of all pixels have none" in said
    assert "classes.yaml ({name: thing, id: 255}), if not, list it under ignore" in said


def test_a_small_thing_of_255_is_found_too(tmp_path):
    assert "every pixel of train" in fault({"train": [areas(*[0] * 31, 255)], "val": [areas(0, 0)]}, tmp_path)


def test_a_class_that_never_occurs_while_much_is_255(tmp_path):
    labels = {"train": [areas(0, 1, 255)], "val": [areas(0, 1, 255)]}
    assert "no pixel of train or val is 'c', while 3" in fault(labels, tmp_path, classes="classes: [a, b, c]\n")


def test_it_is_no_fault_where_255_is_ignored_on_purpose(tmp_path):
    labels = {"train": [areas(0, 1, 255)], "val": [areas(0, 1, 255)]}
    said = notes(labels, tmp_path, classes="classes: [a, b, c]\nignore: [255]\n")
    assert said == ["no pixel of train is 'c': a class that is never seen is not learnt"]


def test_no_valid_pixel_in_a_split(tmp_path):
    said = fault({"train": [areas(0, 1)], "val": [areas(255)]}, tmp_path)
    assert said.startswith("no pixel of val has a class")


def test_one_class_alone_in_train(tmp_path):
    said = fault({"train": [areas(0)], "val": [areas(0, 1)]}, tmp_path)
    assert said.startswith("every pixel of train that has a class is 'background'; add images of other classes, or")


def test_one_class_alone_in_val_is_said(tmp_path):
    [said] = notes({"train": [areas(0, 1)], "val": [areas(0)]}, tmp_path)
    assert "every pixel of val that has a class is 'background': the mIoU is of it alone" in said


def test_images_of_train_in_val_are_said(tmp_path):
    mask = areas(0, 1)
    said = notes({"train": [mask] * 3, "val": [mask] * 3}, tmp_path, images={"train": [1, 2, 3], "val": [9, 3, 1]})
    assert len(said) == 1
    assert "of val 2 images are in train as well, pixel by pixel, such as '1' of val and '2' of train" in said[0]


def test_smeared_masks_are_said(tmp_path):
    rng = np.random.default_rng(0)
    drawn = [rng.choice(np.array([0, 7], np.uint8), (6, 8)).repeat(16, 0).repeat(16, 1) for _ in range(4)]
    classes = "classes: [a, b, c, d, e, f, g, h]\n"

    def resized(how):
        return [np.asarray(Image.fromarray(mask).resize((101, 77), how)) for mask in drawn]

    smooth, nearest = resized(Image.Resampling.BILINEAR), resized(Image.Resampling.NEAREST)
    said = notes({"train": smooth[:2], "val": smooth[2:]}, tmp_path / "smooth", classes=classes)
    assert any("stand alone, as after JPEG or smooth resizing" in note for note in said)
    said = notes({"train": nearest[:2], "val": nearest[2:]}, tmp_path / "nearest", classes=classes)
    assert not any("stand alone" in note for note in said)


def test_content_is_counted_at_native_size_in_a_continued_build(tmp_path, monkeypatch):
    """A class that only the full size shows is present, also when the first part of the build was killed."""
    folder = write(tmp_path / "set", {"train": [areas(0, 1), areas(0, 255)], "val": [areas(0, 1)]})
    mask = areas(0)
    mask[0, 1] = 1  # between the pixels that a store of 12 x 16 keeps
    for index in (0, 1):
        save(folder / "labels" / "train" / f"{index}.png", mask)
    config = DataConfig(name="folder", path=str(folder), size=(12, 16))

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_store(config, tmp_path / "stores", progress=stop, threads=1)
    store = build_store(config, tmp_path / "stores")
    assert store.split("train").class_counts.tolist() == [2 * 12 * 16, 0]
    assert store.notes == []


def test_problems_of_samples_come_first(tmp_path):
    folder = write_folder(tmp_path / "set")
    (folder / "labels/val/c_1.png").write_bytes(b"")
    report = check_set(open_reader(DataConfig(name="folder", path=str(folder), size=(12, 16))))
    assert len(report.problems) == 1
    assert report.faults == []
