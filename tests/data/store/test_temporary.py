"""Builds interrupted by real kills, and full disks."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdsearch.data.readers.scenes import Scenes
from kdsearch.data.registry import open_reader
from kdsearch.data.store import temporary as store_temporary
from kdsearch.data.store.store import Store, build_store
from kdsearch.errors import UserError

BUILD = """
import sys, time
from kdsearch.config.data import DataConfig
from kdsearch.data.store import temporary as store_temporary
from kdsearch.data.readers.scenes import Scenes
from kdsearch.data.store.store import build_store
store_temporary.FLUSH_SECONDS = 0.0
read = Scenes.read
def slow(self, split, key):
    time.sleep(0.1)
    return read(self, split, key)
Scenes.read = slow
def progress(done, total):
    print(done, flush=True)
build_store(DataConfig.model_validate_json(sys.argv[1]), sys.argv[2], progress=progress, threads=1)
print("built", flush=True)
"""


def start(config, root):
    arguments = [sys.executable, "-c", BUILD, config.model_dump_json(), str(root)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def kill_at(config, root, done):
    """Kill a builder after `done` samples, at least that many of them flushed; returns the folder that it leaves."""
    builder = start(config, root)
    for line in builder.stdout:
        if line.strip() == str(done):
            break
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    (left,) = root.iterdir()
    return left


def contents(store):
    return {path.name: path.read_bytes() for path in store.path.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The store of an uninterrupted build."""
    config = TestKilled.config()
    return contents(build_store(config, tmp_path_factory.mktemp("whole")))


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a build that was killed after 6 of 12 samples. Do not change it."""
    return kill_at(TestKilled.config(), tmp_path_factory.mktemp("killed"), 6)


@pytest.fixture
def left(killed, tmp_path):
    """A copy of that folder in `tmp_path`."""
    return Path(shutil.copytree(killed, tmp_path / killed.name))


class Reads:
    """Counts the samples that are drawn."""

    def __init__(self, monkeypatch):
        self.keys = []
        read = Scenes.read

        def counted(reader, split, key):
            self.keys.append(key)
            return read(reader, split, key)

        monkeypatch.setattr(Scenes, "read", counted)


class TestKilled:
    @staticmethod
    def config(**options):
        from kdsearch.config.data import DataConfig

        options = {"train": 7, "val": 5, "height": 48, "width": 64, **options}
        return DataConfig(name="scenes", size=(48, 64), options=options)

    @pytest.mark.parametrize("done", [3, 9])
    def test_it_is_continued_and_the_store_is_the_same_byte_for_byte(self, tmp_path, monkeypatch, whole, done):
        left = kill_at(self.config(), tmp_path, done)
        lines = (left / "rows.jsonl").read_text().splitlines()
        assert len(lines) >= done
        reads, seen = Reads(monkeypatch), []  # fewer reads are what makes it faster
        store = build_store(self.config(), tmp_path, progress=lambda *a: seen.append(a))
        assert len(reads.keys) == 12 - len(lines)
        assert seen[0] == (len(lines), 12)
        assert seen[-1] == (12, 12)
        assert contents(store) == whole
        assert list(tmp_path.iterdir()) == [store.path]

    def test_killed_again_and_again(self, tmp_path, whole):
        for done in (2, 5, 8, 11):
            kill_at(self.config(), tmp_path, done)
        assert contents(build_store(self.config(), tmp_path)) == whole

    def test_an_incomplete_line_and_all_after_it_are_dropped(self, tmp_path, left, monkeypatch, whole):
        rows = left / "rows.jsonl"
        lines = rows.read_text().splitlines(keepends=True)
        rows.write_text("".join([*lines[:3], lines[3][:9], *lines[4:]]))
        reads = Reads(monkeypatch)
        assert contents(build_store(self.config(), tmp_path)) == whole
        assert len(reads.keys) == 12 - 3

    @pytest.mark.parametrize("name", ["train.arrow", "val.arrow", "plan.json"])
    @pytest.mark.parametrize("keep", [0, 50, -1])
    def test_a_truncated_file_is_built_anew(self, tmp_path, left, whole, name, keep):
        file = left / name
        file.write_bytes(file.read_bytes()[:keep])
        store = build_store(self.config(), tmp_path)
        assert contents(store) == whole
        assert list(tmp_path.iterdir()) == [store.path]

    @pytest.mark.parametrize("change", [{"seed": 1}, {"val": 6}])
    def test_other_data_start_anew_and_remove_the_abandoned_build(self, tmp_path, left, monkeypatch, change):
        reads = Reads(monkeypatch)
        store = build_store(self.config(**change), tmp_path)
        assert len(reads.keys) == sum(len(open_reader(self.config(**change)).keys(s)) for s in ("train", "val"))
        assert list(tmp_path.iterdir()) == [store.path]

    def test_other_size_leaves_it_for_its_own_builder(self, tmp_path, left, whole):
        other = build_store(self.config().model_copy(update={"size": (24, 32)}), tmp_path)
        assert set(tmp_path.iterdir()) == {other.path, left}
        assert contents(build_store(self.config(), tmp_path)) == whole

    def test_builds_abandoned_long_ago_are_removed(self, tmp_path, left):
        long_ago = time.time() - store_temporary.KEPT_SECONDS - 60
        os.utime(left / "rows.jsonl", (long_ago, long_ago))
        other = build_store(self.config().model_copy(update={"size": (24, 32)}), tmp_path)
        assert list(tmp_path.iterdir()) == [other.path]

    def test_an_interrupted_build_is_continued(self, tmp_path, monkeypatch, whole):
        monkeypatch.setattr(store_temporary, "FLUSH_SECONDS", 0.0)

        def interrupt(done, total):
            if done == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build_store(self.config(), tmp_path, progress=interrupt)
        reads = Reads(monkeypatch)
        assert contents(build_store(self.config(), tmp_path)) == whole
        assert len(reads.keys) == 8

    def test_two_builders_after_a_kill_make_one_store(self, tmp_path, whole):
        kill_at(self.config(), tmp_path, 4)
        builders = [start(self.config(), tmp_path) for _ in range(2)]
        assert [builder.communicate()[0].split()[-1] for builder in builders] == ["built", "built"]
        (folder,) = tmp_path.iterdir()
        assert contents(Store.open(folder)) == whole


class TestFullDisk:
    def test_a_file_that_may_not_grow_is_an_error_that_names_it(self, tmp_path):
        """A limit of the system on the size of files: a real failure of a real write."""
        config = TestKilled.config()
        arguments = [sys.executable, "-c", BUILD, config.model_dump_json(), str(tmp_path)]
        builder = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000)),
        )
        assert builder.returncode == 1
        assert "train.arrow (File too large); make room" in builder.stderr
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("function", ["pwrite", "fsync"])
    def test_a_disk_that_fills_meanwhile(self, tmp_path, monkeypatch, function):
        calls, real = [], getattr(os, function)

        def full(*arguments):
            calls.append(arguments)
            if len(calls) > 4:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        monkeypatch.setattr(store_temporary, "FLUSH_SECONDS", 0.0)
        monkeypatch.setattr(os, function, full)
        with pytest.raises(UserError, match=r"cannot write .*(arrow|jsonl) \(No space left on device\); make room"):
            build_store(TestKilled.config(), tmp_path)
        monkeypatch.undo()
        assert list(tmp_path.iterdir()) == []
