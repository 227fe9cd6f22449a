"""The conformance suite on every reader of kdsearch."""

from __future__ import annotations

import pytest

from kdsearch.config.data import DataConfig
from kdsearch.data.registry import READERS, open_reader
from kdsearch.testing.readers import ReaderConformance
from tests.data.layouts import (
    opened,
    write_ade20k,
    write_camvid,
    write_cityscapes,
    write_coco_stuff,
    write_folder,
    write_pst900,
    write_voc,
)


class TestScenes(ReaderConformance):
    name = "scenes"

    @pytest.fixture
    def open_again(self):
        config = DataConfig(name="scenes", size=(48, 64), options={"train": 6, "val": 4})
        return lambda: open_reader(config)


class TestMFNet(ReaderConformance):
    name = "mfnet"

    @pytest.fixture
    def open_again(self, mfnet_folder):
        return lambda: open_reader(DataConfig(name="mfnet", path=str(mfnet_folder), size=(24, 32)))


class TestCamVid(ReaderConformance):
    name = "camvid"

    @pytest.fixture(params=["none", "dis"])
    def open_again(self, request, tmp_path):
        folder = write_camvid(tmp_path / "set")
        return lambda: opened("camvid", folder, flow=request.param)


class TestFolder(ReaderConformance):
    name = "folder"

    @pytest.fixture(
        params=[{}, {"lists": True}, {"thermal": "inside"}, {"thermal": "beside"}, {"thermal": "beside", "flow": "dis"}]
    )
    def open_again(self, request, tmp_path):
        options = dict(request.param)
        flow = options.pop("flow", "none")
        folder = write_folder(tmp_path / "set", **options)
        return lambda: opened("folder", folder, flow=flow)


class TestCityscapes(ReaderConformance):
    name = "cityscapes"

    @pytest.fixture(params=["labelIds", "labelTrainIds", "flow"])
    def open_again(self, request, tmp_path):
        if request.param == "flow":
            folder = write_cityscapes(tmp_path / "set", frames=2)
            return lambda: opened("cityscapes", folder, flow="dis", gap=2)
        folder = write_cityscapes(tmp_path / "set", request.param)
        return lambda: opened("cityscapes", folder, labels=request.param)


class TestVOC(ReaderConformance):
    name = "voc"

    @pytest.fixture(params=["train", "trainaug"])
    def open_again(self, request, tmp_path):
        folder = write_voc(tmp_path / "set")
        return lambda: opened("voc", folder, train=request.param)


class TestADE20K(ReaderConformance):
    name = "ade20k"

    @pytest.fixture
    def open_again(self, tmp_path):
        folder = write_ade20k(tmp_path / "set")
        return lambda: opened("ade20k", folder)


class TestCOCOStuff(ReaderConformance):
    name = "coco_stuff"

    @pytest.fixture
    def open_again(self, tmp_path):
        folder = write_coco_stuff(tmp_path / "set")
        return lambda: opened("coco_stuff", folder)


class TestPST900(ReaderConformance):
    name = "pst900"

    @pytest.fixture
    def open_again(self, tmp_path):
        folder = write_pst900(tmp_path / "set")
        return lambda: opened("pst900", folder)


def test_every_registered_reader_has_a_conformance_class():
    mine = [kind for kind in ReaderConformance.__subclasses__() if kind.__module__ == __name__]
    assert {kind.name for kind in mine} == set(READERS)
