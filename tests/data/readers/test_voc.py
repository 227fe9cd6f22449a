"""VOC: lists, borders, augmented labels."""

from __future__ import annotations

import numpy as np
import pytest

from kdsearch.errors import UserError
from tests.data.layouts import opened, pixels, write_label, write_voc


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
