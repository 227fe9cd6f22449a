from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.trial import DataConfig
from kdsearch.data.reader import READERS, open_reader
from kdsearch.errors import UserError

from .conformance import ReaderConformance
from .conftest import write_mfnet


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


@pytest.mark.real_data
@pytest.mark.skipif("KDSEARCH_DATA" not in os.environ, reason="KDSEARCH_DATA names no folder of real data")
class TestRealMFNet(ReaderConformance):
    name = "mfnet"

    @pytest.fixture
    def open_again(self):
        path = str(Path(os.environ["KDSEARCH_DATA"]) / "mfnet")
        return lambda: open_reader(DataConfig(name="mfnet", path=path, size=(480, 640)))


def test_every_registered_reader_has_a_conformance_class():
    assert {TestScenes.name, TestMFNet.name} == set(READERS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "scens"}, "unknown data set 'scens'. Did you mean 'scenes'"),
        ({"name": "mfnet"}, "needs a folder; give --data mfnet=FOLDER"),
        ({"name": "mfnet", "path": "/no/such"}, "folder /no/such does not exist; give --data mfnet=FOLDER"),
        ({"name": "mfnet", "path": "s3://bucket/x"}, "only local folders"),
        ({"name": "scenes", "path": "/tmp"}, "takes no path"),
        ({"name": "scenes", "options": {"sede": 1}}, "no option 'sede'. Did you mean 'seed'"),
        ({"name": "scenes", "options": {"train": 0}}, "option 'train' of data set 'scenes' is 0"),
        ({"name": "scenes", "options": {"train": "many"}}, "option 'train'"),
    ],
)
def test_wrong_requests_say_what_to_do(fields, message):
    with pytest.raises(UserError) as error:
        open_reader(DataConfig(size=(48, 64), **fields))
    assert message in str(error.value)


def test_file_uri_is_a_local_folder(mfnet_folder):
    assert open_reader(DataConfig(name="mfnet", path=f"file://{mfnet_folder}", size=(24, 32))).keys("val")


def test_mfnet_subsets_share_out_the_images(mfnet_folder):
    def keys(**options):
        config = DataConfig(name="mfnet", path=str(mfnet_folder), size=(24, 32), options=options)
        return open_reader(config).keys("train")

    assert keys(subset="day") == ["00000D", "00002D"]
    assert sorted(keys(subset="day") + keys(subset="night")) == keys()
    with pytest.raises(UserError, match="'day' or 'night'"):
        keys(subset="noon")


class TestDamagedMFNet:
    """Each kind of damage is an error that names the file."""

    def read(self, folder, key="00000D"):
        return open_reader(DataConfig(name="mfnet", path=str(folder), size=(24, 32))).read("train", key)

    @pytest.fixture
    def image(self, mfnet_folder):
        return mfnet_folder / "images" / "00000D.png"

    @pytest.fixture
    def label(self, mfnet_folder):
        return mfnet_folder / "labels" / "00000D.png"

    def test_missing_list(self, mfnet_folder):
        (mfnet_folder / "val.txt").unlink()
        with pytest.raises(UserError, match=r"val\.txt does not exist"):
            self.read(mfnet_folder)

    def test_repeated_name(self, mfnet_folder):
        (mfnet_folder / "val.txt").write_text("a\nb\na\n")
        with pytest.raises(UserError, match=r"val\.txt names 'a' more than once"):
            self.read(mfnet_folder)

    def test_image_without_label(self, mfnet_folder, image, label):
        label.unlink()
        with pytest.raises(UserError) as error:
            self.read(mfnet_folder)
        assert f"{image} has no {label}" in str(error.value)

    def test_label_without_image(self, mfnet_folder, image, label):
        image.unlink()
        with pytest.raises(UserError) as error:
            self.read(mfnet_folder)
        assert f"{label} has no {image}" in str(error.value)

    @pytest.mark.parametrize("keep", [0, 20, 60, -30])
    def test_truncated_png(self, mfnet_folder, image, keep):
        image.write_bytes(image.read_bytes()[:keep])
        with pytest.raises(UserError, match=r"images/00000D\.png cannot be read"):
            self.read(mfnet_folder)

    def test_flipped_bytes(self, mfnet_folder, label):
        content = bytearray(label.read_bytes())
        content[60:90] = bytes(30)
        label.write_bytes(content)
        with pytest.raises(UserError, match=r"labels/00000D\.png cannot be read"):
            self.read(mfnet_folder)

    def test_channel_count(self, mfnet_folder, image):
        Image.open(image).convert("RGB").save(image)
        with pytest.raises(UserError, match=r"00000D\.png has 3 channels.* 4"):
            self.read(mfnet_folder)

    def test_label_out_of_range(self, mfnet_folder, label):
        pixels = np.array(Image.open(label))
        pixels[3, 3] = 9
        Image.fromarray(pixels).save(label)
        with pytest.raises(UserError, match=r"labels/00000D\.png: label id 9 is out of range; use class ids 0\.\.8"):
            self.read(mfnet_folder)

    def test_sizes_differ(self, mfnet_folder, label):
        Image.fromarray(np.zeros((12, 16), np.uint8)).save(label)
        with pytest.raises(UserError, match="same size"):
            self.read(mfnet_folder)


def test_fingerprint_follows_the_files(tmp_path):
    folder = write_mfnet(tmp_path / "set")

    def fingerprint(**options):
        return open_reader(DataConfig(name="mfnet", path=str(folder), size=(24, 32), options=options)).fingerprint()

    before = fingerprint()
    assert fingerprint(subset="day") != before
    label = folder / "labels" / "00000D.png"
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(label)
    assert fingerprint() != before
