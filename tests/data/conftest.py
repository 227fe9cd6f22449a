from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.data.store.store import build_store


def write_mfnet(root, train=4, val=2, size=(24, 32)):
    """A small folder in MFNet's layout; half of the names end in D, half in N."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    names = [f"{i:05d}{'DN'[i % 2]}" for i in range(train + val)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (*size, 4), dtype=np.uint8), "RGBA").save(root / "images" / f"{name}.png")
        Image.fromarray(rng.integers(0, 9, size, dtype=np.uint8)).save(root / "labels" / f"{name}.png")
    for split, own in (("train", names[:train]), ("val", names[train:])):
        for suffix, end in (("", ""), ("_day", "D"), ("_night", "N")):
            lines = [name for name in own if name.endswith(end)]
            (root / f"{split}{suffix}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def mfnet_folder(tmp_path):
    return write_mfnet(tmp_path / "mfnet")


@pytest.fixture
def scenes_config():
    return DataConfig(name="scenes", size=(48, 64), options={"train": 7, "val": 5, "height": 48, "width": 64})


@pytest.fixture(scope="session")
def scenes_store(tmp_path_factory):
    """A store of 10 + 7 small scenes, for tests that only read it."""
    config = DataConfig(name="scenes", size=(48, 64), options={"train": 10, "val": 7, "height": 48, "width": 64})
    return build_store(config, tmp_path_factory.mktemp("stores"))
