"""Teachers that trials share."""

from __future__ import annotations

from pathlib import Path

from kdsearch.data.store.store import Store
from kdsearch.train.resources import Resources
from kdsearch.train.teacher import teacher_folder
from kdsearch.train.trial import Trial
from tests.train.stc_cases import stc


def test_all_fusions_share_a_teacher(stc_resources: Resources, store: Store, tmp_path: Path) -> None:
    folders = {teacher_folder(stc(fuse=fuse), store, tmp_path) for fuse in ("mean_prob", "gate", "max_conf")}
    assert len(folders) == 1
    teachers = [Trial(stc(fuse=fuse), stc_resources).teacher for fuse in ("mean_prob", "gate")]
    assert teachers[0] is teachers[1]
    assert teachers[0].fuse == "gate"  # type: ignore[union-attr]


def test_a_teacher_without_terms_is_not_loaded(stc_resources: Resources) -> None:
    assert Trial(stc(distill={}), stc_resources).teacher is None
