"""MFNet: subsets."""

from __future__ import annotations

import pytest

from kdsearch.config.data import DataConfig
from kdsearch.data.registry import open_reader
from kdsearch.errors import UserError


def test_mfnet_subsets_share_out_the_images(mfnet_folder):
    def keys(**options):
        config = DataConfig(name="mfnet", path=str(mfnet_folder), size=(24, 32), options=options)
        return open_reader(config).keys("train")

    assert keys(subset="day") == ["00000D", "00002D"]
    assert sorted(keys(subset="day") + keys(subset="night")) == keys()
    with pytest.raises(UserError, match="'day' or 'night'"):
        keys(subset="noon")
