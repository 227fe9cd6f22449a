from __future__ import annotations

import pytest

from kdsearch.config.data import DataConfig
from kdsearch.data.store.store import build_store
from tests.data.layouts import write_mfnet


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
