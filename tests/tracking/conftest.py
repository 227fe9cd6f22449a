from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kdsearch.config.space.search_space import load_space
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.storage.study_storage import StudyStorage


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder.at(str(tmp_path), "study")
    folder.create()
    return folder


@pytest.fixture
def record(run: RunFolder) -> Iterator[StudyStorage]:
    space = load_space("clfd", profile="demo", overrides=["confirm.seeds=2"])
    record = StudyStorage.open(run.journal, space, lambda config: {"gflops": 0.4, "params_m": 2.0})
    yield record
    record.close()
