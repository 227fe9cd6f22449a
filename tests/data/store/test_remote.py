"""Stores and data sets behind URIs; a folder stands in for the bucket."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import threading

import numpy as np
import pytest
from pyarrow import fs

from kdsearch.config.data import DataConfig
from kdsearch.data.readers.scenes import Scenes
from kdsearch.data.registry import open_reader
from kdsearch.data.store.file_digests import content_of
from kdsearch.data.store.store import Store, build_store
from kdsearch.errors import UserError
from kdsearch.io import object_storage
from kdsearch.io.uris import in_folder
from tests.data.layouts import write_mfnet

ROOT = "s3://bucket/stores"


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """What `s3://bucket` holds. The cache of the node is `tmp_path / "cache"`."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "cache"))
    system = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
    monkeypatch.setattr(
        object_storage, "filesystem", lambda uri: (system, uri.removeprefix("s3://bucket/").rstrip("/"))
    )
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestStores:
    def test_built_here_pushed_and_opened_from_the_cache(self, bucket, tmp_path, scenes_config):
        local = build_store(scenes_config, tmp_path / "local")
        store = build_store(scenes_config, ROOT)
        assert store.source == f"{ROOT}/{local.path.name}"
        assert contents(bucket / "stores" / local.path.name) == contents(local.path) == contents(store.path)
        assert store.path.is_relative_to(tmp_path / "cache")
        assert np.array_equal(store.split("val").images, local.split("val").images)

    def test_on_another_node_it_is_copied_and_nothing_is_read(self, bucket, tmp_path, scenes_config, monkeypatch):
        pickled = pickle.dumps(build_store(scenes_config, ROOT))
        monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "other"))
        monkeypatch.delattr(Scenes, "read")
        again = build_store(scenes_config, ROOT)
        store = pickle.loads(pickled)
        assert store.path == again.path
        assert store.path.is_relative_to(tmp_path / "other")
        assert len(store.split("train")) == 7

    def test_a_second_opening_copies_nothing(self, bucket, scenes_config, monkeypatch):
        store = build_store(scenes_config, ROOT)
        for file in (bucket / "stores" / store.path.name.rpartition("-")[0]).glob("*.arrow"):
            file.unlink()
        assert Store.open(store.source).path == store.path

    def test_a_store_without_meta_is_not_there(self, bucket, tmp_path, scenes_config, monkeypatch):
        """What a killed upload leaves."""
        store = build_store(scenes_config, ROOT)
        name = store.source.rpartition("/")[2]
        (bucket / "stores" / name / "meta.json").unlink()
        with pytest.raises(UserError, match=r"s3://.*/meta.json is missing"):
            Store.open(store.source)
        assert contents(build_store(scenes_config, ROOT).path) == contents(bucket / "stores" / name)

    @pytest.mark.parametrize("name", ["train.arrow", "val.arrow"])
    @pytest.mark.parametrize("keep", [0, 100, -1])
    def test_a_truncated_copy_is_named_and_never_opened(self, bucket, tmp_path, scenes_config, monkeypatch, name, keep):
        source = build_store(scenes_config, ROOT).source
        file = bucket / "stores" / source.rpartition("/")[2] / name
        whole = file.read_bytes()
        file.write_bytes(whole[:keep])
        monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "other"))
        with pytest.raises(UserError, match=f"{source}/{name} has"):
            Store.open(source)
        assert not list((tmp_path / "other").rglob("meta.json"))
        file.write_bytes(whole)
        assert len(Store.open(source).split("val")) == 5

    def test_damaged_meta(self, bucket, scenes_config):
        source = build_store(scenes_config, ROOT).source
        meta = bucket / "stores" / source.rpartition("/")[2] / "meta.json"
        meta.write_text(json.dumps({"splits": 1}))
        with pytest.raises(UserError, match=r"meta.json is damaged"):
            Store.open(source)

    def test_another_store_at_the_same_uri_is_another_copy(self, bucket, scenes_config):
        first = build_store(scenes_config, ROOT)
        meta = bucket / "stores" / first.source.rpartition("/")[2] / "meta.json"
        meta.write_text(meta.read_text() + "\n")
        assert Store.open(first.source).path != first.path

    def test_two_builders_make_one_store(self, bucket, scenes_config):
        stores = []
        threads = [
            threading.Thread(target=lambda: stores.append(build_store(scenes_config, ROOT).path)) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(stores) == 2
        assert len(set(stores)) == 1


class TestSources:
    def config(self):
        return DataConfig(name="mfnet", path="s3://bucket/mfnet", size=(24, 32))

    def test_the_same_samples_and_a_fingerprint_that_stays(self, bucket, tmp_path, monkeypatch):
        write_mfnet(bucket / "mfnet")
        reader = open_reader(self.config())
        direct = open_reader(DataConfig(name="mfnet", path=str(bucket / "mfnet"), size=(24, 32)))
        assert reader.keys("train") == direct.keys("train")
        assert np.array_equal(reader.read("val", "00005N").image_hwc, direct.read("val", "00005N").image_hwc)
        monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "other"))
        readers = (open_reader(self.config()), reader, direct)
        assert len({content_of(each).fingerprint for each in readers}) == 1

    def test_only_what_changed_is_copied(self, bucket, monkeypatch):
        write_mfnet(bucket / "mfnet")
        before = content_of(open_reader(self.config())).fingerprint
        copied, copy = [], object_storage.download_file
        monkeypatch.setattr(object_storage, "download_file", lambda *a: (copied.append(a[1]), copy(*a)))
        image = bucket / "mfnet" / "images" / "00000D.png"
        os.utime(image, (1, 1))
        (bucket / "mfnet" / "images" / "00003N.png").unlink()
        reader = open_reader(self.config())
        assert copied == ["mfnet/images/00000D.png"]
        assert content_of(reader).fingerprint != before
        with pytest.raises(UserError, match="00003N"):
            reader.read("train", "00003N")

    def test_nothing_there(self, bucket):
        with pytest.raises(UserError, match=r"s3://bucket/mfnet holds no files"):
            open_reader(self.config())


def test_file_uris_are_local_folders(tmp_path, scenes_config):
    uri = (tmp_path / "a b").as_uri()
    store = build_store(scenes_config, uri)
    assert store.path.parent == tmp_path / "a b"
    assert Store.open(f"{uri}/{store.path.name}").fingerprint == store.fingerprint
    folder = write_mfnet(tmp_path / "mfnet")
    assert open_reader(DataConfig(name="mfnet", path=folder.as_uri(), size=(24, 32))).keys("val")


def test_what_no_file_system_opens_is_a_wrong_request(scenes_config):
    for act in (lambda: build_store(scenes_config, "nope://a/b"), lambda: Store.open("nope://a/b")):
        with pytest.raises(UserError, match="give a local folder, or a URI such as s3://"):
            act()


def test_a_password_in_a_uri_is_refused_and_not_repeated(scenes_config):
    for act in (lambda uri: build_store(scenes_config, uri), Store.open):
        with pytest.raises(UserError, match="environment variables") as error:
            act("s3://KEY:hidden@bucket/stores")
        assert "hidden" not in str(error.value)


def test_options_of_a_uri_stay_at_its_end():
    assert in_folder("s3://bucket/a/", "b") == in_folder("s3://bucket/a", "b") == "s3://bucket/a/b"
    assert in_folder("s3://bucket?region=x&scheme=http", "b/c") == "s3://bucket/b/c?region=x&scheme=http"
    assert in_folder("gs://bucket/a b", "c") == "gs://bucket/a b/c"


def test_an_unreachable_cache_is_said(bucket, tmp_path, scenes_config, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot write"):
        build_store(scenes_config, ROOT)
    shutil.rmtree(bucket)
