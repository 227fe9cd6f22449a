from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.config.space.search_space import SearchSpace, load_space
from tests.planning.cases import SPACE


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    return load_space(tmp_path / "tiny.yaml")
