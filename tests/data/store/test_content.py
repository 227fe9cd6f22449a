"""The fingerprint of a data set: its bytes and how they are read, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.data.registry import open_reader
from kdsearch.data.store import file_digests
from kdsearch.data.store.build import write_store
from kdsearch.data.store.content import Content
from kdsearch.data.store.file_digests import content_of
from kdsearch.data.store.store import Store, build_store, open_digests
from kdsearch.errors import UserError
from tests.data.layouts import write_folder


def config_of(folder, **options):
    return DataConfig(name="folder", path=str(folder), size=(24, 32), options=options)


def fingerprint(folder):
    return content_of(open_reader(config_of(folder))).fingerprint


def change(label):
    """Other classes in the same number of bytes, at the same time of change."""
    before = label.stat()
    pixels = np.asarray(Image.open(label))
    Image.fromarray(np.where(pixels == 255, 255, 1 - np.minimum(pixels, 1)).astype(np.uint8)).save(label)
    os.utime(label, ns=(before.st_atime_ns, before.st_mtime_ns))


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "set")


@pytest.fixture
def opened(monkeypatch):
    """The files whose bytes are digested."""
    files: list[Path] = []
    digest = file_digests.digest_of
    monkeypatch.setattr(file_digests, "digest_of", lambda path: (files.append(path), digest(path))[1])
    return files


def test_path_and_times_are_no_part_of_it(folder, tmp_path):
    before = fingerprint(folder)
    copied = shutil.copytree(folder, tmp_path / "copied", copy_function=shutil.copyfile)  # cp -r without -p
    for file in files_of(copied):
        os.utime(file, (1, 1))
    assert fingerprint(copied) == before
    assert fingerprint(folder.rename(tmp_path / "moved")) == before


@pytest.mark.parametrize("part", ["images", "labels"])
def test_every_file_is_part_of_it(folder, part):
    before = fingerprint(folder)
    for file in files_of(folder / part):
        content = file.read_bytes()
        file.write_bytes(content + b"\0")
        assert fingerprint(folder) != before
        file.write_bytes(content)
    assert fingerprint(folder) == before


def test_the_rules_of_reading_are_part_of_it(folder):
    before = fingerprint(folder)
    classes = folder / "classes.yaml"
    classes.write_text(classes.read_text().replace("ignore: [3]", "ignore: [3, 77]"))
    assert fingerprint(folder) != before


def test_it_is_computed_in_the_pass_that_decodes(folder, tmp_path, opened, monkeypatch):
    """Each file is digested once, right before it is decoded, and not in a pass of its own."""
    order: list[Path] = opened
    read = type(open_reader(config_of(folder))).read
    monkeypatch.setattr(
        type(open_reader(config_of(folder))), "read", lambda self, *a: (order.append(Path("read")), read(self, *a))[1]
    )
    store = build_store(config_of(folder), tmp_path / "stores", threads=1)
    assert store.fingerprint == fingerprint(folder)
    reader, (first, second, *_) = open_reader(config_of(folder)), store.split("train").keys
    assert order[:6] == [*reader.files("train", first), Path("read"), *reader.files("train", second), Path("read")]
    content = Content.load(store.path / "content.json")
    assert content.fingerprint == store.fingerprint


def test_the_second_time_no_file_is_read(folder, tmp_path, opened, monkeypatch):
    first = build_store(config_of(folder), tmp_path / "stores")
    opened.clear()
    shutil.rmtree(first.path)  # not even for a store that has to be built again
    again = build_store(config_of(folder), tmp_path / "stores")
    assert again.fingerprint == first.fingerprint
    assert opened == []


def test_a_changed_file_alone_is_read_again_whatever_its_size_and_time(folder, tmp_path, opened):
    first = build_store(config_of(folder), tmp_path / "stores")
    (label, *_) = files_of(folder / "labels" / "val")
    change(label)
    opened.clear()
    second = build_store(config_of(folder), tmp_path / "stores")
    assert opened == [label]
    assert second.fingerprint != first.fingerprint
    assert not np.array_equal(second.split("val").labels, first.split("val").labels)


def test_a_copy_at_another_place_uses_the_store_that_is_there(folder, tmp_path, monkeypatch):
    first = build_store(config_of(folder), tmp_path / "stores")
    copied = shutil.copytree(folder, tmp_path / "copied", copy_function=shutil.copyfile)
    monkeypatch.setattr("kdsearch.data.store.build._columns", None)  # nothing is decoded
    assert build_store(config_of(copied), tmp_path / "stores").path == first.path


def test_damaged_digests_are_made_again(folder, tmp_path):
    first = build_store(config_of(folder), tmp_path / "stores")
    for content in ("", "[]", "{", '{"a": 1}'):
        for cache in (tmp_path / "stores" / ".digests").iterdir():
            cache.write_text(content)
        assert build_store(config_of(folder), tmp_path / "stores").path == first.path


def test_a_file_that_changes_meanwhile_makes_no_store(folder, tmp_path):
    digests = open_digests(config_of(folder), tmp_path / "stores")
    change(files_of(folder / "labels" / "val")[0])
    with pytest.raises(UserError, match="changed while it was read"):
        write_store(tmp_path / "stores", "folder-24x32", digests, (24, 32))
    assert list((tmp_path / "stores").iterdir()) == []


def test_a_store_of_an_earlier_version_is_built_again_with_one_sentence(folder, tmp_path):
    root, said = tmp_path / "stores", []
    store = build_store(config_of(folder), root, log=said.append)
    assert said == []
    meta = json.loads((store.path / "meta.json").read_text())
    (store.path / "meta.json").write_text(json.dumps({**meta, "schema_version": 1}))
    old = store.path.rename(root / "folder-24x32-000000000000")
    again = build_store(config_of(folder), root, log=said.append)
    assert again.path == store.path
    assert len(said) == 1
    assert old.name in said[0]
    assert "built again" in said[0]
    build_store(config_of(folder), root, log=said.append)
    assert len(said) == 1
    assert len(Store.open(old).split("train")) == len(again.split("train"))  # for the report of an old study


def test_what_changed_is_counted_and_named(folder):
    reader = open_reader(config_of(folder))
    before = content_of(reader)

    def file_of(split, key, at):
        return str(reader.files(split, key)[at].relative_to(folder))

    labels = files_of(folder / "labels")
    for label in labels:
        change(label)
    text = content_of(reader).changes(before, file_of)
    assert f"of {2 * len(labels)} files {len(labels)} changed" in text
    assert text.count("labels/") == min(5, len(labels))
    assert before.changes(before, file_of) == ""
    (folder / "classes.yaml").write_text("classes: [one, two, three]\n")
    assert "read in another way (classes" in content_of(open_reader(config_of(folder))).changes(before, file_of)
