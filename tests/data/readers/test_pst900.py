"""PST900: the order of channels."""

from __future__ import annotations

import numpy as np

from tests.data.layouts import opened, pixels, write_pst900


def test_pst900_puts_thermal_last(tmp_path):
    folder = write_pst900(tmp_path / "set")
    reader = opened("pst900", folder)
    assert (reader.keys("train"), reader.keys("val")) == (["1", "10", "bag_3"], ["2", "20"])
    image = reader.read("val", "20").image_hwc
    assert np.array_equal(image[..., :3], pixels(folder / "test/rgb/20.png"))
    assert np.array_equal(image[..., 3], pixels(folder / "test/thermal/20.png"))
