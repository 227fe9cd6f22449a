from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.data.registry import READERS, open_reader
from kdsearch.errors import UserError

from .conformance import ReaderConformance
from .conftest import write_mfnet
from .layouts import (
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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "scens"}, "unknown data set 'scens'. Did you mean 'scenes'"),
        ({"name": "mfnet"}, "needs a folder; give --data mfnet=FOLDER"),
        ({"name": "mfnet", "path": "/no/such"}, "folder /no/such does not exist; give --data mfnet=FOLDER"),
        ({"name": "mfnet", "path": "nope://bucket/x"}, "give a local folder, or a URI such as s3://"),
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


def test_sixteen_bit_images_are_refused(tmp_path):
    folder = write_camvid(tmp_path / "set")
    label = folder / "valannot" / "0016E5_07959.png"
    Image.fromarray(np.full((24, 32), 300, np.uint16)).save(label)
    with pytest.raises(UserError, match=r"0016E5_07959\.png has I;16 pixels; save it with 8 bits"):
        opened("camvid", folder).read("val", "0016E5_07959")


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
        before = reader.fingerprint()
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
        assert reader.fingerprint() != before
        file.write_bytes(content)
    reader.read("val", key)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_wrong_folder_is_refused_at_once(name, tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        opened(name, tmp_path, **({"flow": "none"} if "flow" in FOLDERS[name][1] else {}))


def test_grey_and_palette_images_become_rgb(tmp_path):
    folder = write_camvid(tmp_path / "set")
    path = folder / "val" / "0016E5_07959.png"
    grey = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)
    Image.fromarray(grey).save(path)
    assert np.array_equal(opened("camvid", folder).read("val", "0016E5_07959").image_hwc, np.dstack([grey] * 3))
    colour = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)).quantize(16)
    colour.save(path)
    want = np.asarray(colour.convert("RGB"))
    assert np.array_equal(opened("camvid", folder).read("val", "0016E5_07959").image_hwc, want)
