"""Test splits: listed where the set has them, made by `holdout` where not, and never read by a study."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kdsearch.config.data import DataConfig
from kdsearch.data.reader import splits_of
from kdsearch.data.readers.pairs import Pair, hold_out
from kdsearch.data.registry import open_reader
from kdsearch.data.store.file_digests import content_of
from kdsearch.data.store.store import build_store
from kdsearch.errors import UserError
from tests.data.layouts import CAMVID_NAMES, opened, write_camvid, write_folder, write_image, write_label


def add_test(folder: Path, images: str, labels: str, names: tuple[str, ...] = ("x_1", "x_2")) -> None:
    for seed, name in enumerate(names):
        write_image(folder / images / f"{name}.png", seed + 90)
        write_label(folder / labels / f"{name}.png", range(2), seed + 90)


def test_camvid_lists_test_where_it_is(tmp_path: Path) -> None:
    folder = write_camvid(tmp_path / "set")
    assert splits_of(opened("camvid", folder)) == ("train", "val")
    before = content_of(opened("camvid", folder)).fingerprint
    add_test(folder, "test", "testannot")
    reader = opened("camvid", folder)
    assert splits_of(reader) == ("train", "val", "test")
    assert reader.keys("test") == ["x_1", "x_2"]
    assert reader.read("test", "x_1").label_hw.shape == (24, 32)
    assert content_of(reader).fingerprint == before, "a test split is no part of a study's data"
    with pytest.raises(ValueError, match="unknown split 'tset'; there are train, val, test"):
        reader.keys("tset")


def test_a_study_does_not_read_it(tmp_path: Path) -> None:
    folder = write_camvid(tmp_path / "set")
    add_test(folder, "test", "testannot")
    (folder / "test" / "x_1.png").write_bytes(b"no image")
    shutil.rmtree(folder / "testannot")
    config = DataConfig(name="camvid", path=str(folder), size=(24, 32))
    build_store(config, tmp_path / "stores")
    with pytest.raises(UserError, match="testannot does not exist"):
        open_reader(config).keys("test")  # type: ignore[attr-defined]


def test_an_image_of_train_is_none_of_test(tmp_path: Path) -> None:
    folder = write_camvid(tmp_path / "set")
    shared = CAMVID_NAMES["train"][0]
    add_test(folder, "test", "testannot", (shared,))
    with pytest.raises(UserError, match=f"'{shared}' is in train and in test; remove it from one of them"):
        opened("camvid", folder).keys("test")


@pytest.mark.parametrize("listed", [True, False])
def test_a_folder_lists_test_in_its_own_form(listed: bool, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set")
    if listed:
        for kind in ("images", "labels"):
            for split in ("train", "val"):
                for path in list((folder / kind / split).iterdir()):
                    path.rename(folder / kind / path.name)
                    with (folder / f"{split}.txt").open("a") as file:
                        file.write(f"{path.stem}\n" if kind == "images" else "")
                (folder / kind / split).rmdir()
        add_test(folder, "images", "labels")
        assert splits_of(opened("folder", folder)) == ("train", "val")
        (folder / "test.txt").write_text("x_1\nx_2\n")
    else:
        add_test(folder, "images/test", "labels/test")
    reader = opened("folder", folder)
    assert splits_of(reader) == ("train", "val", "test")
    assert reader.keys("test") == ["x_1", "x_2"]
    with pytest.raises(UserError, match="has a test split of its own; leave the option holdout out"):
        opened("folder", folder, holdout=0.5)


def test_holdout_makes_the_official_val_the_test_split(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set")
    plain, held = opened("folder", folder), opened("folder", folder, holdout=0.5)
    assert splits_of(held) == ("train", "val", "test")
    assert held.keys("test") == plain.keys("val")
    assert sorted(held.keys("train") + held.keys("val")) == sorted(plain.keys("train"))
    assert held.keys("train")
    assert held.keys("val")


def test_held_out_images_follow_from_their_names_alone() -> None:
    names = [f"image {i}" for i in range(2000)]

    def held(known: list[str]) -> set[str]:
        pairs = {"train": {name: Pair(Path(name), Path(name)) for name in known}, "val": {}}
        return set(hold_out(pairs, 0.1)[0]["val"])

    assert 150 < len(held(names)) < 250
    assert held(names[:1000]) == held(names) & set(names[:1000])


def test_the_built_in_scenes_have_a_test_split() -> None:
    reader = open_reader(DataConfig(name="scenes", size=(32, 64), options={"train": 1, "val": 1, "test": 2}))
    assert splits_of(reader) == ("train", "val", "test")
    assert reader.keys("test") == ["test-00000", "test-00001"]
    assert (reader.read("test", "test-00000").image_hwc != reader.read("val", "val-00000").image_hwc).any()
