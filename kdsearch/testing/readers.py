"""Conformance suite of data-set readers: the contract of `kdsearch.data.reader.Reader` as tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.reader import SPLITS, Reader, Sample
from kdsearch.data.store.file_digests import content_of

__all__ = ["ReaderConformance"]

Open = Callable[[], Reader]


class ReaderConformance:
    """Inherit, with a fixture `open_again` that returns a function: each call opens the same data set anew."""

    @pytest.fixture
    def open_again(self) -> Open:
        raise NotImplementedError

    @pytest.fixture
    def reader(self, open_again: Open) -> Reader:
        return open_again()

    def test_info_is_complete(self, reader: Reader) -> None:
        """Two classes or more, with distinct names and colours; statistics for every channel."""
        info = reader.info
        assert info.num_classes == len(info.palette) == len(set(info.classes)) > 1
        assert len(set(info.palette)) == info.num_classes
        assert all(0 <= value <= 255 for colour in info.palette for value in colour)
        assert info.channels in (3, 4)
        assert len(info.mean) == len(info.std) == info.channels

    def test_keys_are_unique(self, reader: Reader) -> None:
        keys = {split: reader.keys(split) for split in SPLITS}
        for names in keys.values():
            assert names
            assert len(set(names)) == len(names)

    def test_unknown_split_is_refused(self, reader: Reader) -> None:
        with pytest.raises(ValueError, match="nope"):
            reader.keys("nope")

    def test_samples_agree_with_info(self, reader: Reader) -> None:
        """Types, shapes, class ids, and a next frame with finite flow for video sets alone."""
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
                    assert sample.flow_hw2 is not None
                    assert sample.flow_hw2.shape == (height, width, 2)
                    assert sample.flow_hw2.dtype == np.float32
                    assert np.isfinite(sample.flow_hw2).all()

    def test_files_exist_and_rules_are_plain_values(self, reader: Reader) -> None:
        json.dumps(reader.rules())
        for split in SPLITS:
            assert all(file.is_file() for key in reader.keys(split) for file in reader.files(split, key))

    def test_another_reader_of_the_same_data_is_equal(self, reader: Reader, open_again: Open) -> None:
        """Equal content, keys and samples."""
        other = open_again()
        assert content_of(reader).fingerprint == content_of(other).fingerprint
        for split in SPLITS:
            assert reader.keys(split) == other.keys(split)
            key = reader.keys(split)[-1]
            assert_equal(reader.read(split, key), other.read(split, key))

    def test_reads_in_threads_are_independent(self, reader: Reader) -> None:
        keys = reader.keys("val")[:4]
        with ThreadPoolExecutor(4) as pool:
            for key, sample in zip(keys, pool.map(lambda key: reader.read("val", key), keys), strict=True):
                assert_equal(sample, reader.read("val", key))


def assert_equal(one: Sample, other: Sample) -> None:
    """Two samples hold the same pixels, labels, next frames and flow."""
    for name in ("image_hwc", "label_hw", "next_image_hwc", "flow_hw2"):
        here, there = getattr(one, name), getattr(other, name)
        assert (here is None) == (there is None), name
        assert here is None or np.array_equal(here, there), name
