"""Stores and data sets on object stores (`pyarrow.fs`: s3://, gs://, abfs://, hdfs://), by way of a local folder.

Memory mapping needs local files, and so do the readers: what is named by such a URI is copied once to a cache folder of
the node, `KDSEARCH_CACHE` or `~/.cache/kdsearch`. A store is published by its `meta.json`, which is written last on
either side, so that no half of one is ever opened. Credentials are found as `pyarrow.fs` finds them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from kdsearch.data.store.file import sync_path, writing
from kdsearch.errors import UserError
from kdsearch.io.uris import in_folder


def filesystem(uri: str) -> tuple[Any, str]:
    """The file system of a URI, and the path in it. `UserError` where `pyarrow.fs` knows or reaches none.

    A URI with a password in it is refused: URIs stand in messages, in run folders and in what is tracked.
    """
    if urlsplit(uri).password is not None:
        scheme = urlsplit(uri).scheme
        raise UserError(
            f"a {scheme}:// URI holds a password, which would end up in logs; take it out, and give credentials by "
            "environment variables (AWS_ACCESS_KEY_ID, ...) or the provider's own files"
        )
    try:
        system, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"{uri} cannot be opened ({error}); give a local folder, or a URI such as s3://bucket/folder"
        ) from None
    return system, path.rstrip("/")


def cache_folder() -> Path:
    """Where this node keeps its copies."""
    return Path(os.environ.get("KDSEARCH_CACHE") or "~/.cache/kdsearch").expanduser()


def has_store(uri: str) -> bool:
    """Whether there is a whole store at `uri`."""
    system, path = filesystem(uri)
    with _reaching(uri):
        found: bool = system.get_file_info(f"{path}/meta.json").is_file
    return found


def push_store(folder: Path, uri: str) -> None:
    """Copy a local store to `uri`, `meta.json` last."""
    system, path = filesystem(uri)
    with _reaching(uri):
        system.create_dir(path, recursive=True)
        for file in (*sorted(folder.glob("*.arrow")), folder / "meta.json"):
            fs.copy_files(
                str(file), f"{path}/{file.name}", source_filesystem=fs.LocalFileSystem(), destination_filesystem=system
            )


def fetch_store(uri: str) -> Path:
    """The local copy of the store at `uri`, copied now if it is not there: a folder named by what `meta.json` says."""
    system, path = filesystem(uri)
    with _reaching(uri):
        if not system.get_file_info(f"{path}/meta.json").is_file:
            raise UserError(f"{in_folder(uri, 'meta.json')} is missing; there is no whole store, build it again")
        with system.open_input_stream(f"{path}/meta.json") as stream:
            meta: bytes = stream.read()
    local = _copy_of_store(uri, meta)
    if local.exists():
        return local
    try:
        sizes = {f"{name}.arrow": facts["bytes"] for name, facts in json.loads(meta)["splits"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{in_folder(uri, 'meta.json')} is damaged ({error!r}); build the store again") from None
    with _locked(local.parent):  # the processes of a node copy it once
        if not local.exists():
            _download(system, path, uri, local, sizes, meta)
    return local


def keep(folder: Path, uri: str) -> None:
    """Take the local store that was pushed to `uri` for its copy on this node."""
    local = _copy_of_store(uri, (folder / "meta.json").read_bytes())
    if local.exists():
        shutil.rmtree(folder)
    else:
        folder.rename(local)


def fetch_folder(uri: str) -> Path:
    """A local copy of the folder at `uri`, with sizes and times of files as there; only what changed is copied."""
    system, path = filesystem(uri)
    with _reaching(uri):
        listed = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    files = {info.path.removeprefix(f"{path}/"): info for info in listed if info.is_file}
    if not files:
        raise UserError(f"{uri} holds no files; check the URI")
    folder = _place("data", uri)

    def fetch(name: str) -> None:
        target, info = folder / name, files[name]
        if not target.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{uri} holds a file named {name}, which leads out of the folder; rename it")
        stat = target.stat() if target.exists() else None
        if stat is not None and (stat.st_size, stat.st_mtime_ns) == (info.size, info.mtime_ns or 0):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        with _reaching(in_folder(uri, name)):
            _copy_here(system, info.path, partial)
        os.utime(partial, ns=(info.mtime_ns or 0, info.mtime_ns or 0))
        partial.replace(target)

    with _locked(folder), ThreadPoolExecutor(16) as pool:
        for old in [old for old in folder.rglob("*") if old.is_file()]:
            if old.relative_to(folder).as_posix() not in files:
                old.unlink()
        list(pool.map(fetch, files))
    return folder


@contextmanager
def building_for(uri: str) -> Iterator[Path]:
    """A local folder to build stores for the folder `uri` in; other processes of the node wait for it."""
    folder = _place("built", uri)
    with _locked(folder):
        yield folder


def _download(system: Any, path: str, uri: str, local: Path, sizes: dict[str, int], meta: bytes) -> None:
    partial = local.with_name(f".{local.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    try:
        with writing(partial):
            partial.mkdir()
        for name, size in sizes.items():
            with _reaching(in_folder(uri, name)):
                _copy_here(system, f"{path}/{name}", partial / name)
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
    """Where the copy of a store lies; a store of other content at the same URI lies elsewhere."""
    name = urlsplit(uri).path.rstrip("/").rpartition("/")[2]
    return _place("stores", uri) / f"{name}-{hashlib.sha256(meta).hexdigest()[:12]}"


def _copy_here(system: Any, source: str, target: Path) -> None:
    fs.copy_files(source, str(target), source_filesystem=system, destination_filesystem=fs.LocalFileSystem())


def _place(kind: str, uri: str) -> Path:
    """The cache's folder for a URI."""
    folder = cache_folder() / kind / hashlib.sha256(uri.rstrip("/").encode()).hexdigest()[:16]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = os.open(folder.with_name(f"{folder.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def _reaching(uri: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{uri} cannot be copied or read ({error}); check the URI, its access and the disk") from error
