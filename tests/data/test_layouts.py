"""What is special about Cityscapes, VOC, ADE20K, COCO-Stuff and PST900."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.errors import UserError

from .layouts import opened, write_ade20k, write_cityscapes, write_coco_stuff, write_label, write_pst900, write_voc


def pixels(path):
    return np.array(Image.open(path))


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
        assert reader.fingerprint() != other.fingerprint()

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


class TestVOC:
    def test_lists_and_borders(self, tmp_path):
        folder = write_voc(tmp_path / "set")
        reader = opened("voc", folder)
        assert reader.keys("train") == ["2007_000032", "2007_000039", "2008_000008"]
        assert opened("voc", folder, train="train").keys("train") == ["2007_000032", "2007_000039"]
        raw = pixels(folder / "SegmentationClass" / "2007_000033.png")  # indices, not the palette's colours
        assert np.array_equal(reader.read("val", "2007_000033").label_hw, raw)
        assert 255 in raw

    def test_augmented_labels_only_where_asked_for(self, tmp_path):
        folder = write_voc(tmp_path / "set")
        write_label(folder / "SegmentationClassAug" / "2007_000032.png", [7])
        assert (opened("voc", folder).read("train", "2007_000032").label_hw == 7).all()
        assert (opened("voc", folder, train="train").read("train", "2007_000032").label_hw != 7).any()
        write_label(folder / "SegmentationClassAug" / "2007_000033.png", [7])
        assert (opened("voc", folder).read("val", "2007_000033").label_hw != 7).any()

    def test_list_of_paths(self, tmp_path):
        folder = write_voc(tmp_path / "set")
        line = "/JPEGImages/2008_000008.jpg /SegmentationClassAug/2008_000008.png\n"
        (folder / "ImageSets" / "Segmentation" / "trainaug.txt").write_text(line)
        assert opened("voc", folder).keys("train") == ["2008_000008"]

    def test_without_the_augmented_set(self, tmp_path):
        folder = write_voc(tmp_path / "set", augmented=False)
        with pytest.raises(UserError, match=r"trainaug\.txt does not exist; .*set train: train"):
            opened("voc", folder)
        assert opened("voc", folder, train="train").keys("train")

    def test_published_palette(self, tmp_path):
        palette = opened("voc", write_voc(tmp_path / "set")).info.palette
        assert palette[0] == (0, 0, 0)
        assert palette[15] == (192, 128, 128)  # person
        assert palette[20] == (0, 64, 128)  # tv monitor


def test_ade20k_shifts_ids_and_ignores_0(tmp_path):
    folder = write_ade20k(tmp_path / "set")
    raw = pixels(folder / "annotations/training/ADE_train_00000001.png").astype(int)
    label = opened("ade20k", folder).read("train", "ADE_train_00000001").label_hw
    assert np.array_equal(label, np.where(raw == 0, IGNORE_INDEX, raw - 1))
    info = opened("ade20k", folder).info
    assert info.num_classes == 150
    assert (info.classes[0], info.classes[12], info.classes[149]) == ("wall", "person", "flag")


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


def test_pst900_puts_thermal_last(tmp_path):
    folder = write_pst900(tmp_path / "set")
    reader = opened("pst900", folder)
    assert (reader.keys("train"), reader.keys("val")) == (["1", "10", "bag_3"], ["2", "20"])
    image = reader.read("val", "20").image_hwc
    assert np.array_equal(image[..., :3], pixels(folder / "test/rgb/20.png"))
    assert np.array_equal(image[..., 3], pixels(folder / "test/thermal/20.png"))
