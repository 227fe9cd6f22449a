"""Stores on object stores: pushed from and fetched to a local folder of the node (`io/object_storage.py`).

A store is published by its `meta.json`, which is written last on either side, so that an incomplete one is never
opened.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kdsearch.data.store.content import CONTENT
from kdsearch.errors import UserError
from kdsearch.io import object_storage
from kdsearch.io.atomic import sync_path
from kdsearch.io.disk import writing
from kdsearch.io.object_storage import cache_folder, cache_lock, reaching
from kdsearch.io.uris import in_folder


def has_store(uri: str) -> bool:
    """Whether there is a complete store at `uri`."""
    system, path = object_storage.filesystem(uri)
    with reaching(uri):
        found: bool = system.get_file_info(f"{path}/meta.json").is_file
    return found


def push_store(folder: Path, uri: str) -> None:
    """Copy a local store to `uri`, `meta.json` last."""
    system, path = object_storage.filesystem(uri)
    with reaching(uri):
        system.create_dir(path, recursive=True)
        for file in (*sorted(folder.glob("*.arrow")), folder / CONTENT, folder / "meta.json"):
            object_storage.upload_file(system, file, f"{path}/{file.name}")


def fetch_store(uri: str) -> Path:
    """The local copy of the store at `uri`, downloaded on first use into a folder named after its `meta.json`."""
    system, path = object_storage.filesystem(uri)
    with reaching(uri):
        if not system.get_file_info(f"{path}/meta.json").is_file:
            raise UserError(f"{in_folder(uri, 'meta.json')} is missing; there is no complete store, build it again")
        with system.open_input_stream(f"{path}/meta.json") as stream:
            meta: bytes = stream.read()
    local = _copy_of_store(uri, meta)
    if local.exists():
        return local
    try:
        facts = json.loads(meta)
        sizes = {f"{name}.arrow": split["bytes"] for name, split in facts["splits"].items()}
        sizes[CONTENT] = facts["content_bytes"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{in_folder(uri, 'meta.json')} is damaged ({error!r}); build the store again") from None
    with cache_lock(local.parent):  # one process per node downloads it
        if not local.exists():
            _download(system, path, uri, local, sizes, meta)
    return local


def keep(folder: Path, uri: str) -> None:
    """Use the local store that was pushed to `uri` as its copy on this node."""
    local = _copy_of_store(uri, (folder / "meta.json").read_bytes())
    if local.exists():
        shutil.rmtree(folder)
    else:
        folder.rename(local)


@contextmanager
def building_for(uri: str) -> Iterator[Path]:
    """A local folder in which to build stores for the folder `uri`; excludes the other processes of the node."""
    folder = cache_folder("built", uri)
    with cache_lock(folder):
        yield folder


def _download(system: Any, path: str, uri: str, local: Path, sizes: dict[str, int], meta: bytes) -> None:
    partial = local.with_name(f".{local.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
    try:
        with writing(partial):
            partial.mkdir()
        for name, size in sizes.items():
            with reaching(in_folder(uri, name)):
                object_storage.download_file(system, f"{path}/{name}", partial / name)
            found = (partial / name).stat().st_size
            if found != size:
                where = in_folder(uri, name)
                raise UserError(f"{where} has {found} bytes instead of {size}; remove {uri} and build it again")
            sync_path(partial / name)
        with writing(partial / "meta.json"):
            (partial / "meta.json").write_bytes(meta)
            sync_path(partial / "meta.json")
            partial.rename(local)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy_of_store(uri: str, meta: bytes) -> Path:
    """The folder of the store's copy; it depends on the content of `meta.json`, too."""
    name = urlsplit(uri).path.rstrip("/").rpartition("/")[2]
    return cache_folder("stores", uri) / f"{name}-{hashlib.sha256(meta).hexdigest()[:12]}"
