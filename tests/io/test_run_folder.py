from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.errors import UserError
from kdsearch.io.run_folder import LONGEST_NAME, RunFolder


def test_a_name_longer_than_file_systems_take(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^name a{20}\.\.\.: a run's name has at most 200 bytes, not 300; give a shorter"
    ):
        RunFolder.at(str(tmp_path), "a" * 300)
    with pytest.raises(UserError, match="at most 200 bytes, not 202"):
        RunFolder.at(str(tmp_path), "é" * 101)
    RunFolder.at(str(tmp_path), "a" * LONGEST_NAME).create()
