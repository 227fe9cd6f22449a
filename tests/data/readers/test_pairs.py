"""Damage to the files of a data set, and its fingerprint."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.data.registry import open_reader
from kdsearch.data.store.file_digests import content_of
from kdsearch.errors import UserError
from tests.data.layouts import (
    opened,
    write_ade20k,
    write_camvid,
    write_cityscapes,
    write_coco_stuff,
    write_folder,
    write_mfnet,
    write_pst900,
    write_voc,
)


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
        config = DataConfig(name="mfnet", path=str(folder), size=(24, 32), options=options)
        return content_of(open_reader(config)).fingerprint

    before = fingerprint()
    assert fingerprint(subset="day") != before
    label = folder / "labels" / "00000D.png"
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(label)
    assert fingerprint() != before


FOLDERS = {
    "mfnet": (write_mfnet, {}),
    "camvid": (write_camvid, {"flow": "dis"}),
    "cityscapes": (lambda root: write_cityscapes(root, frames=1), {"flow": "dis"}),
    "voc": (write_voc, {}),
    "ade20k": (write_ade20k, {}),
    "coco_stuff": (write_coco_stuff, {}),
    "pst900": (write_pst900, {}),
    "folder": (lambda root: write_folder(root, thermal="beside"), {"flow": "dis"}),
}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("damage", ["missing", "truncated", "other size"])
def test_damage_to_any_file_of_a_sample_names_the_file(name, damage, tmp_path):
    write, options = FOLDERS[name]
    reader = opened(name, write(tmp_path / "set"), **options)
    key = reader.keys("val")[0]
    for file in reader.files("val", key):
        content = file.read_bytes()
        before = content_of(reader).fingerprint
        if damage == "missing":
            file.unlink()
        elif damage == "truncated":
            file.write_bytes(content[: len(content) // 2])
        else:
            image = Image.open(file)
            image.resize((16, 12), Image.Resampling.NEAREST).save(file)
        with pytest.raises(UserError) as error:
            reader.read("val", key)
        assert str(file) in str(error.value) or (damage == "other size" and "size" in str(error.value))
        assert content_of(reader).fingerprint != before
        file.write_bytes(content)
    reader.read("val", key)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_wrong_folder_is_refused_at_once(name, tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        opened(name, tmp_path, **({"flow": "none"} if "flow" in FOLDERS[name][1] else {}))
