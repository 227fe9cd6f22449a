from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tracking.made_up import MadeUp


@pytest.fixture
def study(tmp_path: Path) -> Iterator[MadeUp]:
    study = MadeUp(tmp_path)
    study.search()
    study.confirm()
    study.tables.write("running")
    yield study
    study.close()
