"""The teacher of studies on one storage: one of them trains it, the others wait and find it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from kdsearch.config.space.search_space import SearchSpace
from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.costs import Costs
from kdsearch.search.teacher import StudyTeacher


def test_one_study_claims_the_teacher_and_the_others_wait_for_it(
    tmp_path: Path, space: SearchSpace, store: Store
) -> None:
    def of(name: str) -> StudyTeacher:
        run = RunFolder(tmp_path / "runs" / name)
        run.create()
        return StudyTeacher(space, store, run, Costs(space, store))

    one, other = of("one"), of("other")
    with ExitStack() as first, ExitStack() as second:
        assert one.claim(first)
        assert not other.claim(second)
        first.close()  # its driver has ended without a teacher
        assert other.claim(second)
        assert not one.claim(first)
        assert other.folder is not None
        assert other.weights is not None
        other.folder.mkdir()
        other.weights.write_text("weights")
        assert one.claim(first), "it is there"
        assert one.training() is None


def test_a_folder_without_weights_is_named(tmp_path: Path, space: SearchSpace, store: Store) -> None:
    run = RunFolder(tmp_path / "runs" / "one")
    run.create()
    teacher = StudyTeacher(space, store, run, Costs(space, store))
    assert teacher.folder is not None
    teacher.folder.mkdir()
    with pytest.raises(UserError, match=r"model\.safetensors is missing; delete the folder"):
        StudyTeacher(space, store, run, Costs(space, store))
