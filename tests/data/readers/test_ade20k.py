"""ADE20K: class ids."""

from __future__ import annotations

import numpy as np

from kdsearch.data.info import IGNORE_INDEX
from tests.data.layouts import opened, pixels, write_ade20k


def test_ade20k_shifts_ids_and_ignores_0(tmp_path):
    folder = write_ade20k(tmp_path / "set")
    raw = pixels(folder / "annotations/training/ADE_train_00000001.png").astype(int)
    label = opened("ade20k", folder).read("train", "ADE_train_00000001").label_hw
    assert np.array_equal(label, np.where(raw == 0, IGNORE_INDEX, raw - 1))
    info = opened("ade20k", folder).info
    assert info.num_classes == 150
    assert (info.classes[0], info.classes[12], info.classes[149]) == ("wall", "person", "flag")
