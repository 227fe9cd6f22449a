from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kdsearch.data.store.store import Store
from kdsearch.train.teacher_cache import reader
from kdsearch.train.trial import Trial
from tests.train.teacher_cache.cases import cache_resources, cached


@pytest.fixture(scope="session")
def whole_cache(store: Store, teacher_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cache of the trial `cached()`, one image per file. Do not change it."""
    root = tmp_path_factory.mktemp("teacher-cache")
    trial = cached()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "SHARD_BYTES", 1)
        Trial(trial, cache_resources(trial, store, teacher_weights, root))
    (folder,) = root.iterdir()
    return folder


@pytest.fixture
def built(whole_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that cache which a test may change."""
    monkeypatch.setattr(reader, "SHARD_BYTES", 1)
    return Path(shutil.copytree(whole_cache, tmp_path / whole_cache.name))
