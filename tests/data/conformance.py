"""What every reader keeps: inherit `ReaderConformance` and give an `open_again` fixture."""

from __future__ import annotations

import numpy as np
import pytest

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.reader import SPLITS, Reader


class ReaderConformance:
    """A test class for one reader. The `open_again` fixture is a function that opens it anew."""

    @pytest.fixture
    def open_again(self):
        raise NotImplementedError

    @pytest.fixture
    def reader(self, open_again) -> Reader:
        return open_again()

    def test_info_is_complete(self, reader):
        info = reader.info
        assert info.num_classes == len(info.palette) == len(set(info.classes)) > 1
        assert len(set(info.palette)) == info.num_classes
        assert all(0 <= value <= 255 for colour in info.palette for value in colour)
        assert info.channels in (3, 4)
        assert len(info.mean) == len(info.std) == info.channels

    def test_keys_are_unique_and_splits_disjoint(self, reader):
        keys = {split: reader.keys(split) for split in SPLITS}
        for names in keys.values():
            assert names
            assert len(set(names)) == len(names)
        assert not set(keys["train"]) & set(keys["val"])

    def test_unknown_split_is_refused(self, reader):
        with pytest.raises(ValueError, match="nope"):
            reader.keys("nope")

    def test_samples_are_what_info_says(self, reader):
        for split in SPLITS:
            for key in reader.keys(split)[:4]:
                sample = reader.read(split, key)
                height, width = sample.label_hw.shape
                assert sample.image_hwc.shape == (height, width, reader.info.channels)
                assert sample.image_hwc.dtype == sample.label_hw.dtype == np.uint8
                ids = np.unique(sample.label_hw)
                assert np.all((ids < reader.info.num_classes) | (ids == IGNORE_INDEX))
                assert (sample.next_image_hwc is not None) == reader.info.video
                if sample.next_image_hwc is not None:
                    assert sample.next_image_hwc.shape == sample.image_hwc.shape
                    assert sample.next_image_hwc.dtype == np.uint8
                    assert sample.flow_hw2.shape == (height, width, 2)
                    assert sample.flow_hw2.dtype == np.float32
                    assert np.isfinite(sample.flow_hw2).all()

    def test_reading_again_gives_the_same(self, reader, open_again):
        other = open_again()
        assert reader.fingerprint() == other.fingerprint()
        for split in SPLITS:
            assert reader.keys(split) == other.keys(split)
            key = reader.keys(split)[-1]
            one, two = reader.read(split, key), other.read(split, key)
            assert np.array_equal(one.image_hwc, two.image_hwc)
            assert np.array_equal(one.label_hw, two.label_hw)
            if one.flow_hw2 is not None:
                assert np.array_equal(one.flow_hw2, two.flow_hw2)
                assert np.array_equal(one.next_image_hwc, two.next_image_hwc)
