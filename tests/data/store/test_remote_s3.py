"""Stores and data sets on a real S3 server of this machine (moto), over HTTP."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

from kdsearch.config.data import DataConfig
from kdsearch.data.readers.scenes import Scenes
from kdsearch.data.registry import open_reader
from kdsearch.data.store.store import Store, build_store
from kdsearch.errors import UserError
from tests.data.layouts import write_mfnet

moto = pytest.importorskip("moto.server", reason="needs an S3 server: pip install 'moto[s3,server]'")


@pytest.fixture(scope="module")
def server():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
    """Options of a URI `s3://bucket/...` of the server; the bucket is new."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "cache"))
    host, port = server.get_host_and_port()
    options = f"?endpoint_override=http://{host}:{port}&scheme=http"
    system = of_server(options)
    system.create_dir("bucket")
    yield options
    system.delete_dir("bucket")


def of_server(options):
    return fs.FileSystem.from_uri(f"s3://bucket/{options}&allow_bucket_creation=true&allow_bucket_deletion=true")[0]


def stored(options, path):
    with of_server(options).open_input_stream(path) as stream:
        return stream.read()


def test_a_store_goes_there_and_comes_back(bucket, tmp_path, scenes_config, monkeypatch):
    local = build_store(scenes_config, tmp_path / "local")
    name = local.path.name
    store = build_store(scenes_config, f"s3://bucket/runs/stores{bucket}")
    assert store.source == f"s3://bucket/runs/stores/{name}{bucket}"
    for file in local.path.iterdir():
        assert stored(bucket, f"bucket/runs/stores/{name}/{file.name}") == file.read_bytes()
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "other"))
    monkeypatch.delattr(Scenes, "read")  # another node copies, and reads no sample
    again = build_store(scenes_config, f"s3://bucket/runs/stores/{bucket}")
    assert again.path.is_relative_to(tmp_path / "other")
    assert np.array_equal(again.split("val").images, local.split("val").images)


def test_what_is_missing_or_cut_short_there_is_named(bucket, tmp_path, scenes_config, monkeypatch):
    name = Path(build_store(scenes_config, f"s3://bucket/stores{bucket}").source.partition("?")[0]).name
    system, uri = of_server(bucket), f"s3://bucket/stores/{name}"
    with system.open_output_stream(f"bucket/stores/{name}/train.arrow") as stream:
        stream.write(b"ARROW1")
    monkeypatch.setenv("KDSEARCH_CACHE", str(tmp_path / "other"))
    with pytest.raises(UserError, match=rf"{uri}/train\.arrow\S* has 6 bytes"):
        Store.open(f"{uri}{bucket}")
    assert not list((tmp_path / "other").rglob("*.arrow"))
    system.delete_file(f"bucket/stores/{name}/meta.json")
    with pytest.raises(UserError, match=rf"{uri}/meta\.json\S* is missing"):
        Store.open(f"{uri}{bucket}")
    assert len(build_store(scenes_config, f"s3://bucket/stores{bucket}").split("train")) == 7


def test_a_data_set_is_read_from_there(bucket, tmp_path):
    folder = write_mfnet(tmp_path / "mfnet")
    fs.copy_files(str(folder), "bucket/mfnet", fs.LocalFileSystem(), of_server(bucket))
    reader = open_reader(DataConfig(name="mfnet", path=f"s3://bucket/mfnet{bucket}", size=(24, 32)))
    direct = open_reader(DataConfig(name="mfnet", path=str(folder), size=(24, 32)))
    assert reader.keys("train") == direct.keys("train")
    assert np.array_equal(reader.read("val", "00005N").image_hwc, direct.read("val", "00005N").image_hwc)


def test_a_bucket_that_is_not_there_is_named(bucket, scenes_config):
    with pytest.raises(UserError, match="s3://other/stores"):
        build_store(scenes_config, f"s3://other/stores{bucket}")
