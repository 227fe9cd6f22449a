"""Writers of the teacher cache: their folder, shared work, and kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdsearch.data.store.store import Store
from kdsearch.io.locks import locked
from kdsearch.models.seg_output import SegOutput
from kdsearch.train.teacher_cache.reader import TeacherCache
from kdsearch.train.teacher_cache.writer import building_folder, write_cache
from tests.train.teacher_cache.cases import HALF, cache_resources, cached


def test_nothing_but_the_cache_is_left(built: Path) -> None:
    names = {path.name for path in built.iterdir()}
    assert names == {"meta.json", *(f"maps-{shard:05d}.arrow" for shard in range(24))}
    meta = json.loads((built / "meta.json").read_text())
    assert meta["errors"]["logits"].keys() == {"rms_error", "max_error", "relative_error", "kl", "classes_changed"}
    assert meta["errors"]["head"].keys() == {"rms_error", "max_error", "relative_error"}


WRITER = """
import sys, time
from pathlib import Path
from kdsearch.compat import ensure_torchvision
ensure_torchvision()
import torch
from kdsearch.config.trial import TrialConfig
from kdsearch.train.resources import Resources
from kdsearch.train.teacher_cache import reader
from kdsearch.train.teacher_cache.plan import plan_cache
from kdsearch.train.teacher_cache.writer import write_cache
torch.set_num_threads(1)
store, weights, root = map(Path, sys.argv[1:4])
config, wait = TrialConfig.model_validate_json(sys.argv[4]), float(sys.argv[5])
reader.SHARD_BYTES = 1
shared = Resources(store, weights)
plan = plan_cache([config], shared.store, root, weights).plan
spec = plan.spec(config, shared.store, weights)
forward = shared._teacher_forward(config)
def slow(rows):
    print("rows", *rows, flush=True)
    time.sleep(wait)
    return forward(rows)
write_cache(spec.folder(root), spec, slow)
"""


def writer(store: Store, weights: Path, root: Path, wait: float) -> subprocess.Popen[str]:
    arguments = [str(store.path), str(weights), str(root), cached().model_dump_json(), str(wait)]
    return subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True)


def rows_of(text: str) -> list[int]:
    return [int(row) for line in text.splitlines() for row in line.split()[1:]]


def assert_same_maps(folder: Path, other: Path) -> None:
    """Two caches differ by no more than roundings of fp16: a network's sums depend on the number of threads."""
    assert {path.name for path in folder.iterdir()} == {path.name for path in other.iterdir()}
    ours, theirs = TeacherCache(folder), TeacherCache(other)
    assert ours.codecs == theirs.codecs
    assert ours.images == theirs.images
    assert ours.next_frames == theirs.next_frames
    rows = np.arange(ours.images * (2 if ours.next_frames else 1))
    for name, errors in ours.errors.items():
        torch.testing.assert_close(ours.whole(name, rows), theirs.whole(name, rows), rtol=2 * HALF, atol=1e-6)
        assert errors == pytest.approx(theirs.errors[name], rel=0.01, abs=1e-7)


@pytest.mark.slow
def test_a_killed_writer_is_continued(built: Path, store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    root = tmp_path / "killed"
    process = writer(store, teacher_weights, root, wait=0.1)
    assert process.stdout is not None
    before = [process.stdout.readline() for _ in range(4)]
    os.kill(process.pid, signal.SIGKILL)
    before += [process.communicate()[0]]
    assert process.returncode == -signal.SIGKILL
    folder = root / built.name
    assert not folder.exists()
    finished = {path.name: path.stat().st_mtime_ns for path in building_folder(folder).glob("*.arrow")}
    assert 3 <= len(finished) < 24

    second = writer(store, teacher_weights, root, wait=0)
    after = rows_of(second.communicate()[0])
    assert second.returncode == 0
    assert sorted(after) == list(range(len(finished), 24))
    assert set(rows_of("".join(before))) >= set(range(len(finished)))
    assert_same_maps(folder, built)
    assert all((folder / name).stat().st_mtime_ns == modified for name, modified in finished.items())


@pytest.mark.slow
def test_writers_share_the_work(built: Path, store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    root = tmp_path / "shared"
    processes = [writer(store, teacher_weights, root, wait=0.1) for _ in range(2)]
    rows = [rows_of(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all(rows)
    assert sorted([*rows[0], *rows[1]]) == list(range(24))
    assert [path.name for path in root.iterdir()] == [built.name]
    assert_same_maps(root / built.name, built)


def test_a_writer_waits_for_a_shard_that_another_has_claimed(built: Path, store: Store, teacher_weights: Path) -> None:
    trial = cached()
    shared = cache_resources(trial, store, teacher_weights, built.parent)
    assert shared.cache_plan is not None
    spec = shared.cache_plan.spec(trial, store, teacher_weights)
    shutil.rmtree(built)
    building_folder(built).mkdir()
    rows: list[int] = []

    def forward(wanted: np.ndarray[Any, Any]) -> SegOutput:
        rows.extend(wanted)
        return shared._teacher_forward(trial)(wanted)

    thread = threading.Thread(target=write_cache, args=(built, spec, forward))
    with locked(building_folder(built) / "shard-00002.claim"):
        thread.start()
        deadline = time.monotonic() + 30
        while len(rows) < 23 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        assert shared.cache_plan.progress(trial, store, teacher_weights) == (23, 24)
        assert 2 not in rows
        assert not built.exists()
    thread.join(30)
    assert rows[-1] == 2
    assert shared.cache_plan.progress(trial, store, teacher_weights) is None
    assert shared.cache_plan.progress(trial, store, built / "not trained yet") is None
    assert TeacherCache(built).images == 12
