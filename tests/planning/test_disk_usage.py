"""The disk usage of a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.data.store.store import Store
from kdsearch.planning.disk_usage import disk_usage
from kdsearch.planning.measure import random_store
from tests.planning.cases import SPACE


def test_disk_is_counted_for_the_whole_data_set(space: SearchSpace, store: Store, tmp_path: Path) -> None:
    drawn = random_store(tmp_path / "store", store.info, (32, 64), 2)
    few, notes = disk_usage(space, drawn, {"train": 40, "val": 10}, tmp_path, 2, 5)
    many, _ = disk_usage(space, drawn, {"train": 400, "val": 100}, tmp_path, 2, 5)
    assert many["data store"] == 10 * few["data store"]
    assert many["teacher maps, taps"] == pytest.approx(10 * few["teacher maps, taps"])
    assert few["teacher maps, logits"] < few["teacher maps, taps"]
    assert many["checkpoints"] == few["checkpoints"]
    assert notes["teacher maps, taps"] == "not taken; teacher.cache=auto would"


def test_a_teacher_that_no_trial_reads_takes_no_disk(store: Store, tmp_path: Path) -> None:
    alone = SPACE[: SPACE.index("distill:")] + SPACE[SPACE.index("train: {epochs: 9") :]
    (tmp_path / "alone.yaml").write_text(alone)
    drawn = random_store(tmp_path / "store", store.info, (32, 64), 2)
    found, _ = disk_usage(load_space(tmp_path / "alone.yaml"), drawn, {"train": 40, "val": 10}, tmp_path, 2, 5)
    assert set(found) == {"data store", "checkpoints", "students"}
