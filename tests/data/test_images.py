"""Reading of image files."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kdsearch.errors import UserError
from tests.data.layouts import opened, save, write_camvid, write_folder


def test_sixteen_bit_images_are_refused(tmp_path):
    folder = write_camvid(tmp_path / "set")
    label = folder / "valannot" / "0016E5_07959.png"
    Image.fromarray(np.full((24, 32), 300, np.uint16)).save(label)
    with pytest.raises(UserError, match=r"0016E5_07959\.png has I;16 pixels; save it with 8 bits"):
        opened("camvid", folder).read("val", "0016E5_07959")


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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(16, 32), (32, 32)])
@pytest.mark.parametrize("end", [".jpg", ".png"])
def test_photographs_are_read_as_viewers_show_them(tmp_path, orientation, size, end):
    """The mask is drawn on what people saw, which is not what the file stores; squares tell nothing by their size."""
    folder = write_folder(tmp_path / "set", classes="classes: [dark, bright]\n")
    shown = np.zeros(size, np.uint8)
    shown[: size[0] // 2, : size[1] // 4] = 1  # one corner, so that no turn or mirror image looks alike
    undo = [0, 1, 2, 3, 4, 5, 8, 7, 6][orientation]
    image, exif = Image.fromarray(shown * 200), Image.Exif()
    turn = TURNS.get(undo)
    (image if turn is None else image.transpose(turn)).convert("RGB").save(tmp_path / f"stored{end}")
    exif[0x0112] = orientation
    stored = Image.open(tmp_path / f"stored{end}")
    for path in list((folder / "images" / "val").iterdir()):
        path.unlink()
        stored.save(path.with_suffix(end), exif=exif, **({"quality": 100} if end == ".jpg" else {}))
        save(folder / "labels" / "val" / f"{path.stem}.png", shown)
    sample = opened("folder", folder).read("val", "c_1")
    assert np.array_equal(sample.image_hwc[..., 0] > 100, shown == 1)
    assert np.array_equal(sample.label_hw, shown)


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def test_a_mask_of_the_stored_photograph_is_refused(tmp_path):
    folder = write_folder(tmp_path / "set")
    path, exif = folder / "images" / "val" / "c_1.png", Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    with pytest.raises(UserError, match=r"c_1\.png is turned by a quarter against .*; turn the mask, or remove"):
        opened("folder", folder).read("val", "c_1")


def test_images_beyond_the_limit_say_what_helps(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "set")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 32 // 2 - 1)
    with pytest.raises(UserError, match=r"c_1\.png has 0 million pixels, the most .* cut .* into tiles, or make"):
        opened("folder", folder).read("val", "c_1")


def test_images_over_half_the_limit_are_read_without_a_warning(tmp_path):
    path = write_folder(tmp_path / "set") / "images" / "val" / "c_1.png"
    code = (
        "import sys; from pathlib import Path; from PIL import Image; from kdsearch.data.images import read_rgb\n"
        f"Image.MAX_IMAGE_PIXELS = {24 * 32 - 1}; print(read_rgb(Path(sys.argv[1])).shape)"
    )
    seen = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert (seen.stdout, seen.stderr) == ("(24, 32, 3)\n", "")


def test_four_channels_of_ink_are_no_thermal_image(tmp_path):
    folder = write_folder(tmp_path / "set", thermal="inside")
    path = folder / "images" / "val" / "c_1.png"
    Image.open(path).convert("RGB").convert("CMYK").save(path.with_suffix(".jpg"))
    path.unlink()
    with pytest.raises(UserError, match=r"c_1\.jpg has 4 channels \(CMYK\), images of this set have 4 \(RGB"):
        opened("folder", folder).read("val", "c_1")
