"""Cityscapes: label ids, next frames, folders."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.store.file_digests import content_of
from kdsearch.errors import UserError
from tests.data.layouts import opened, pixels, write_cityscapes


class TestCityscapes:
    def test_label_ids_become_train_ids(self, tmp_path):
        folder = write_cityscapes(tmp_path / "set")
        reader = opened("cityscapes", folder)
        assert reader.keys("val") == ["lindau_000000_000019", "lindau_000001_000019"]
        raw = pixels(folder / "gtFine/train/zurich/zurich_000001_000019_gtFine_labelIds.png")
        label = reader.read("train", "zurich_000001_000019").label_hw
        names = reader.info.classes
        for value, name in {7: "road", 11: "building", 21: "vegetation", 26: "car", 33: "bicycle"}.items():
            assert set(label[raw == value]) == {names.index(name)}
        for value in (0, 4, 9, 14, 18, 29, 30):
            assert set(label[raw == value]) == {IGNORE_INDEX}
        assert len(set(np.unique(label)) - {IGNORE_INDEX}) == 19

    def test_train_ids_stay(self, tmp_path):
        folder = write_cityscapes(tmp_path / "set", "labelTrainIds")
        raw = pixels(folder / "gtFine/train/zurich/zurich_000001_000019_gtFine_labelTrainIds.png")
        reader = opened("cityscapes", folder, labels="labelTrainIds")
        assert np.array_equal(reader.read("train", "zurich_000001_000019").label_hw, raw)
        with pytest.raises(UserError, match=r"aachen holds no file that ends with _gtFine_labelIds\.png"):
            opened("cityscapes", folder)

    @pytest.mark.parametrize(("there", "asked"), [("labelTrainIds", "labelIds"), ("labelIds", "labelTrainIds")])
    def test_the_other_label_files_alone_name_the_option(self, tmp_path, there, asked):
        folder = write_cityscapes(tmp_path / "set", there)
        with pytest.raises(UserError, match=rf"but those of {there}; add set data\.options\.labels={there}"):
            opened("cityscapes", folder, labels=asked)

    def test_folders_that_are_no_cities_are_left_out(self, tmp_path):
        folder = write_cityscapes(tmp_path / "set")
        keys = opened("cityscapes", folder).keys("train")
        for junk in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
            (folder / "leftImg8bit" / "train" / junk).mkdir()
        (folder / "leftImg8bit/train/__MACOSX/._aachen_000000_000019_leftImg8bit.png").write_bytes(b"x")
        assert opened("cityscapes", folder).keys("train") == keys

    def test_a_city_without_labels_is_still_one(self, tmp_path):
        folder = write_cityscapes(tmp_path / "set")
        shutil.rmtree(folder / "gtFine" / "train" / "zurich")
        with pytest.raises(UserError, match="zurich does not exist"):
            opened("cityscapes", folder)

    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_next_frames_come_from_the_sequences(self, tmp_path, elsewhere):
        folder = write_cityscapes(tmp_path / "set", frames=3)
        frames, options = folder / "leftImg8bit_sequence", {}
        if elsewhere:
            frames = frames.rename(tmp_path / "frames")
            options = {"sequence": str(frames)}
        want = pixels(frames / "train/zurich/zurich_000001_000021_leftImg8bit.png")
        reader = opened("cityscapes", folder, flow="dis", gap=2, **options)
        assert np.array_equal(reader.read("train", "zurich_000001_000019").next_image_hwc, want)
        other = opened("cityscapes", folder, flow="dis", gap=1, **options)
        assert content_of(reader).fingerprint != content_of(other).fingerprint

    def test_frames_that_are_not_there(self, tmp_path):
        folder = write_cityscapes(tmp_path / "set", frames=2)
        reader = opened("cityscapes", folder, flow="dis", gap=3)
        with pytest.raises(UserError, match=r"has no .*lindau_000000_000022_leftImg8bit\.png"):
            reader.read("val", "lindau_000000_000019")
        with pytest.raises(UserError, match="set/x does not exist; unpack leftImg8bit_sequence"):
            opened("cityscapes", folder, flow="dis", sequence="x")
        with pytest.raises(UserError, match="sequence has no effect"):
            opened("cityscapes", folder, sequence="x")

    def test_a_city_without_labels(self, tmp_path):
        folder = write_cityscapes(tmp_path / "set")
        (folder / "gtFine/train/zurich").rename(tmp_path / "away")
        with pytest.raises(UserError, match="gtFine/train/zurich does not exist"):
            opened("cityscapes", folder)
