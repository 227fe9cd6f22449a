from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.data.images import resize_flow, resize_image, resize_label
from kdsearch.data.registry import open_reader
from kdsearch.data.store.store import Split, Store, build_store
from kdsearch.errors import UserError

BUILD = """
import sys, time
from kdsearch.config.data import DataConfig
from kdsearch.data.store.store import build_store
config = DataConfig.model_validate_json(sys.argv[1])
print("start", flush=True)
def progress(done, total):
    print(done, flush=True)
    time.sleep(float(sys.argv[3]))
store = build_store(config, sys.argv[2], progress=progress)
print("built", len(store.split("train")), flush=True)
"""


def start_builder(config, root, pause=0.0):
    arguments = [sys.executable, "-c", BUILD, config.model_dump_json(), str(root), str(pause)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def mfnet_config(folder, size=(24, 32)):
    return DataConfig(name="mfnet", path=str(folder), size=size)


def test_round_trip_of_every_column(scenes_config, tmp_path):
    seen = []
    store = build_store(scenes_config, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 12) for i in range(1, 13)]
    reader = open_reader(scenes_config)
    assert store.info == reader.info
    assert store.size == (48, 64)
    for name in ("train", "val"):
        split = store.split(name)
        assert split.keys == reader.keys(name)
        assert len(split) == len(split.keys) == len(split.images)
        counts = np.zeros(reader.info.num_classes, int)
        for row, key in enumerate(split.keys):
            sample = reader.read(name, key)
            assert np.array_equal(split.images[row], sample.image_hwc)
            assert np.array_equal(split.labels[row], sample.label_hw)
            assert np.array_equal(split.next_images[row], sample.next_image_hwc)
            assert np.array_equal(split.flows[row], sample.flow_hw2)
            counts += np.bincount(sample.label_hw.ravel(), minlength=len(counts))
        assert np.array_equal(split.class_counts, counts)


def test_arrays_are_views_of_the_mapped_file(scenes_store):
    split = scenes_store.split("train")
    for array in (split.images, split.labels, split.next_images, split.flows):
        assert not array.flags.owndata
        assert not array.flags.writeable
    maps = Path("/proc/self/maps")
    if maps.exists():  # Linux
        assert str(scenes_store.path / "train.arrow") in maps.read_text()


def test_pickles_are_small(scenes_store):
    content = pickle.dumps((scenes_store, scenes_store.split("val")))
    assert len(content) < 1000
    store, split = pickle.loads(content)
    assert isinstance(split, Split)
    assert np.array_equal(split.images, scenes_store.split("val").images)
    assert store.fingerprint == scenes_store.fingerprint


def test_still_sets_have_no_frames(mfnet_folder, tmp_path):
    split = build_store(mfnet_config(mfnet_folder), tmp_path / "stores").split("val")
    assert split.next_images is None
    assert split.flows is None


def test_an_existing_store_is_opened_at_once(mfnet_folder, tmp_path):
    first = build_store(mfnet_config(mfnet_folder), tmp_path / "stores")
    calls = []
    again = build_store(mfnet_config(mfnet_folder), tmp_path / "stores", progress=lambda *a: calls.append(a))
    assert again.path == first.path
    assert not calls
    assert [path.name for path in (tmp_path / "stores").glob("[!.]*")] == [first.path.name]
    assert first.path.name == f"mfnet-24x32-{first.fingerprint[:12]}"


def test_resized_to_the_configured_size(mfnet_folder, tmp_path):
    store = build_store(mfnet_config(mfnet_folder, (12, 16)), tmp_path / "stores")
    sample = open_reader(mfnet_config(mfnet_folder)).read("train", "00001N")
    split = store.split("train")
    assert np.array_equal(split.images[1], resize_image(sample.image_hwc, (12, 16)))
    assert np.array_equal(split.labels[1], resize_label(sample.label_hw, (12, 16)))


def test_resizing_keeps_colour_apart_from_thermal():
    image = np.full((8, 8, 4), 200, np.uint8)
    image[..., 3] = 0  # as an alpha channel this would blacken the rest
    assert (resize_image(image, (4, 4))[..., :3] == 200).all()


def test_resized_flow_is_in_new_pixels():
    flow = np.broadcast_to(np.array([4.0, 6.0], np.float32), (8, 16, 2)).copy()
    resized = resize_flow(flow, (4, 4))
    assert resized.shape == (4, 4, 2)
    assert np.allclose(resized, [1.0, 3.0])


class TestDamage:
    @pytest.fixture
    def store_path(self, mfnet_folder, tmp_path):
        return build_store(mfnet_config(mfnet_folder), tmp_path / "stores").path

    def expect(self, path, *parts):
        with pytest.raises(UserError) as error:
            Store.open(path)
        for part in (*parts, f"delete the folder {path}"):
            assert part in str(error.value)

    @pytest.mark.parametrize("keep", [0, 100, -1])
    def test_truncated_arrow_file(self, store_path, keep):
        file = store_path / "val.arrow"
        file.write_bytes(file.read_bytes()[:keep])
        self.expect(store_path, "val.arrow")

    def test_overwritten_arrow_file(self, store_path):
        file = store_path / "train.arrow"
        file.write_bytes(bytes(file.stat().st_size))
        self.expect(store_path, "train.arrow is damaged")

    def test_missing_arrow_file(self, store_path):
        (store_path / "train.arrow").unlink()
        self.expect(store_path, "train.arrow is missing")

    def test_missing_meta(self, store_path):
        (store_path / "meta.json").unlink()
        self.expect(store_path, "meta.json is missing")

    def test_damaged_meta(self, store_path):
        meta = store_path / "meta.json"
        meta.write_text(meta.read_text()[:40])
        self.expect(store_path, "meta.json is not JSON")

    def test_other_schema_version(self, store_path):
        meta = store_path / "meta.json"
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "schema_version": 99}))
        self.expect(store_path, "schema version 99")

    def test_building_over_a_damaged_store_says_so(self, store_path, mfnet_folder):
        (store_path / "meta.json").unlink()
        with pytest.raises(UserError, match="delete the folder"):
            build_store(mfnet_config(mfnet_folder), store_path.parent)


class TestBadFiles:
    def build(self, folder, root):
        with pytest.raises(UserError) as error:
            build_store(mfnet_config(folder), root)
        assert not root.exists()
        return str(error.value)

    def test_all_are_listed(self, mfnet_folder, tmp_path):
        image = mfnet_folder / "images" / "00000D.png"
        image.write_bytes(image.read_bytes()[:80])
        label = mfnet_folder / "labels" / "00005N.png"
        Image.fromarray(np.full((24, 32), 77, np.uint8)).save(label)
        (mfnet_folder / "images" / "00003N.png").unlink()
        message = self.build(mfnet_folder, tmp_path / "stores")
        assert "3 of 6 samples" in message
        for part in ("images/00000D.png cannot be read", "labels/00003N.png has no", "00005N.png: label id 77"):
            assert part in message

    def test_the_first_ten_and_the_count(self, tmp_path):
        from tests.data.layouts import write_mfnet

        folder = write_mfnet(tmp_path / "set", train=14, val=2)
        for path in (folder / "images").iterdir():
            path.unlink()
        message = self.build(folder, tmp_path / "stores")
        assert "16 of 16 samples" in message
        assert message.count("has no") == 10
        assert "and 6 more" in message


def test_a_killed_builder_leaves_nothing_to_open(scenes_config, tmp_path):
    builder = start_builder(scenes_config, tmp_path, pause=0.1)
    for line in builder.stdout:
        if line.strip() == "8":  # in the middle of the second split
            break
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    assert left[0].name.endswith(".building")
    with pytest.raises(UserError):
        Store.open(left[0])
    store = build_store(scenes_config, tmp_path)
    assert list(tmp_path.iterdir()) == [store.path]


def test_two_builders_make_one_store(scenes_config, tmp_path):
    builders = [start_builder(scenes_config, tmp_path, pause=0.15) for _ in range(2)]
    for builder in builders:
        assert builder.stdout.readline().strip() == "start"
    seen: set[Path] = set()
    while any(builder.poll() is None for builder in builders) and len(seen) < 2:
        seen |= set(tmp_path.glob(".*.building"))
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(seen) == 2
    assert all(folder.exists() for folder in seen)  # neither takes the other's folder for litter
    assert [builder.communicate()[0].split()[-2:] for builder in builders] == [["built", "7"]] * 2
    assert [builder.returncode for builder in builders] == [0, 0]
    (folder,) = tmp_path.iterdir()
    assert len(Store.open(folder).split("val")) == 5


def test_no_space_is_said_before_anything_is_written(scenes_config, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: _Usage())
    with pytest.raises(UserError, match=r"0\.0 GB free, the store needs"):
        build_store(scenes_config, tmp_path)
    assert list(tmp_path.iterdir()) == []


class _Usage:
    free = 1000


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_store_without_a_label_in_a_split_is_refused(split, tmp_path):
    """An earlier version may have built it: nothing can be trained, or ranked, on its labels."""
    config = DataConfig(name="scenes", size=(32, 48), options={"train": 2, "val": 2, "height": 32, "width": 48})
    meta = build_store(config, tmp_path).path / "meta.json"
    facts = json.loads(meta.read_text())
    facts["splits"][split]["class_counts"] = [0] * len(facts["info"]["classes"])
    meta.write_text(json.dumps(facts))
    with pytest.raises(UserError, match=f"no pixel of the split {split} has a label at 32x48: all are 255; check"):
        build_store(config, tmp_path)


def test_a_reader_without_samples_in_a_split_is_refused(tmp_path, monkeypatch):
    config = DataConfig(name="scenes", size=(32, 48), options={"train": 2, "val": 2, "height": 32, "width": 48})
    reader = open_reader(config)
    keys = reader.keys
    monkeypatch.setattr(type(reader), "keys", lambda self, split: keys(split) if split == "train" else [])
    with pytest.raises(UserError, match="the split val is empty; give it at least one image"):
        build_store(config, tmp_path)
    assert list(tmp_path.iterdir()) == []
