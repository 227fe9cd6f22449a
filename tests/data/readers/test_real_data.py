"""The readers on true files of the public data sets, from the folder that KDSEARCH_DATA names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdsearch.testing.readers import ReaderConformance
from tests.data.layouts import opened

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif("KDSEARCH_DATA" not in os.environ, reason="KDSEARCH_DATA names no folder of real data"),
]


def real(*parts: str) -> Path:
    return Path(os.environ["KDSEARCH_DATA"], *parts)


def link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


def agreement(reader, split, key, other) -> float:
    """Share of the pixels that are the same in `other`, a label read by other means."""
    return float((reader.read(split, key).label_hw == other).mean())


class TestMFNet(ReaderConformance):
    @pytest.fixture(params=["mfnet", "layouts/MFNet"])
    def open_again(self, request):
        return lambda: opened("mfnet", real(request.param))


class TestCamVid(ReaderConformance):
    @pytest.fixture(params=["none", "dis"])
    def open_again(self, request):
        return lambda: opened("camvid", real("camvid"), flow=request.param)

    def test_length_and_size(self, reader):
        assert [len(reader.keys(split)) for split in ("train", "val")] == [367, 101]
        assert reader.read("val", "0016E5_07959").label_hw.shape == (360, 480)

    def test_lists_and_folders_are_the_same(self, tmp_path):
        for name in ("train", "trainannot", "val", "valannot"):
            link(real("camvid", name), tmp_path / name)
        listed, found = opened("camvid", real("camvid")), opened("camvid", tmp_path)
        for split in ("train", "val"):
            assert sorted(listed.keys(split)) == found.keys(split)

    @pytest.mark.parametrize("gap", [1, 3])
    def test_flow_brings_the_next_frame_closer(self, gap):
        """Validation frames are 1/15 s apart: along the flow colours agree better than in place, and so do labels."""
        reader = opened("camvid", real("camvid"), flow="dis", gap=gap)
        keys = reader.keys("val")
        along, in_place, labels_along, labels_in_place = [], [], [], []
        for index in range(0, 90, 15):
            sample, following = reader.read("val", keys[index]), reader.read("val", keys[index + gap])
            assert np.array_equal(sample.next_image_hwc, following.image_hwc)
            y, x = np.indices(sample.label_hw.shape)
            to_x = np.clip(np.rint(x + sample.flow_hw2[..., 0]).astype(int), 0, x.max())
            to_y = np.clip(np.rint(y + sample.flow_hw2[..., 1]).astype(int), 0, y.max())
            image, after = sample.image_hwc.astype(int), following.image_hwc.astype(int)
            along.append(np.abs(image - after[to_y, to_x]).mean())
            in_place.append(np.abs(image - after).mean())
            labels_along.append((sample.label_hw == following.label_hw[to_y, to_x]).mean())
            labels_in_place.append((sample.label_hw == following.label_hw).mean())
        assert np.mean(along) < 0.7 * np.mean(in_place)
        assert np.mean(labels_along) > np.mean(labels_in_place) + 0.01


class TestCityscapes(ReaderConformance):
    @pytest.fixture
    def open_again(self):
        return lambda: opened("cityscapes", real("layouts/cityscapes"))

    def test_size(self, reader):
        assert reader.keys("train") == [f"aachen_00000{i}_000019" for i in range(3)]
        assert reader.read("val", "frankfurt_000000_000576").label_hw.shape == (1024, 2048)

    def test_instances_are_of_thing_classes(self, reader):
        """Values of 1000 and more in `instanceIds` are label id x 1000 + number, of the last eight classes."""
        key = "aachen_000000_000019"
        path = real("layouts/cityscapes/gtFine/train/aachen", f"{key}_gtFine_instanceIds.png")
        instances = np.array(Image.open(path)) >= 1000
        ids = set(np.unique(reader.read("train", key).label_hw[instances]))
        assert ids <= set(range(11, 19))
        assert ids

    def test_official_train_ids_are_the_same(self, tmp_path):
        """A small copy, of which the two label files were shrunk in different ways and differ along borders."""
        key, small = "frankfurt_000000_000294", real("layouts/cityscapes_small_256x128")
        for place, end in (("leftImg8bit", ""), ("gtFine", "_labelIds"), ("gtFine", "_labelTrainIds")):
            name = f"{key}_{place}{end}.png"
            link(small / place / "val/frankfurt" / name, tmp_path / place / "val/frankfurt" / name)
            link(small / place / "val/frankfurt" / name, tmp_path / place / "train/x" / name.replace("frankfurt", "x"))
        want = opened("cityscapes", tmp_path, labels="labelTrainIds").read("val", key).label_hw
        assert agreement(opened("cityscapes", tmp_path), "val", key, want) > 0.97


class TestVOC(ReaderConformance):
    @pytest.fixture(params=["train", "trainaug"])
    def open_again(self, request):
        return lambda: opened("voc", real("layouts/VOCdevkit/VOC2012"), train=request.param)

    def test_palette_is_that_of_the_files(self, reader):
        image = Image.open(real("layouts/VOCdevkit/VOC2012/SegmentationClass/2011_000003.png"))
        colours = np.array(image.getpalette()).reshape(-1, 3)[:21]
        assert np.array_equal(colours, reader.info.palette)

    def test_the_full_list_of_names(self, tmp_path):
        for name in ("JPEGImages", "SegmentationClass", "SegmentationClassAug"):
            link(real("layouts/VOCdevkit/VOC2012", name), tmp_path / name)
        lists = tmp_path / "ImageSets" / "Segmentation"
        link(real("layouts/VOCdevkit/trainaug_full_10582.txt"), lists / "trainaug.txt")
        (lists / "val.txt").write_text("2007_000033\n")
        assert len(opened("voc", tmp_path).keys("train")) == 10582


class TestADE20K(ReaderConformance):
    @pytest.fixture
    def open_again(self, tmp_path):
        for place, end in (("images", "jpg"), ("annotations", "png")):
            source = real("layouts/ADEChallengeData2016", place, "validation")
            link(source, tmp_path / place / "validation")
            link(source / f"ADE_val_00000001.{end}", tmp_path / place / "training" / f"ADE_train_00000001.{end}")
        return lambda: opened("ade20k", tmp_path)

    def test_names_are_the_official_ones(self, reader):
        lines = real("layouts/ADEChallengeData2016/objectInfo150.txt").read_text().splitlines()[1:]
        first = [line.split("\t")[4].split(",")[0].strip() for line in lines]
        assert tuple(first) == reader.info.classes

    def test_what_a_picture_shows(self, reader):
        """Some classes, as seen in it."""
        label = reader.read("val", "ADE_val_00000001").label_hw
        shown = {reader.info.classes[i] for i in np.unique(label) if i != 255}
        assert {"building", "sky", "tree"} <= shown


class TestCOCOStuff(ReaderConformance):
    @pytest.fixture
    def open_again(self):
        return lambda: opened("coco_stuff", real("layouts/coco_stuff164k"))

    def test_what_pictures_show(self, reader):
        def shown(split, key):
            return {reader.info.classes[i] for i in np.unique(reader.read(split, key).label_hw) if i != 255}

        assert len(reader.keys("val")) == 4
        assert {"dining table", "tv", "chair", "person", "clock"} <= shown("val", "000000000139")
        assert {"person", "skis", "snow"} <= shown("val", "000000000785")
