"""Reading of image files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kdsearch.errors import UserError
from tests.data.layouts import opened, write_camvid


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
