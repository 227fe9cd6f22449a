"""Folders on object stores (`pyarrow.fs`: s3://, gs://, abfs://, hdfs://) and the node's cache of their content.

Memory mapping and readers need local files, so content is copied once per node into a cache folder: `KDSEARCH_CACHE`,
or `~/.cache/kdsearch`. Credentials are found as `pyarrow.fs` finds them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from kdsearch.errors import UserError
from kdsearch.io.disk import writing
from kdsearch.io.locks import locked
from kdsearch.io.uris import in_folder


def filesystem(uri: str) -> tuple[Any, str]:
    """The file system of a URI, and the path in it. `UserError` where `pyarrow.fs` knows or reaches none.

    A URI with a password is refused, because URIs appear in messages, run folders and tracked metadata.
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


def cache_folder(kind: str, uri: str) -> Path:
    """The folder for copies of `uri` in this node's cache, created where needed; `kind` is a folder above it."""
    root = Path(os.environ.get("KDSEARCH_CACHE") or "~/.cache/kdsearch").expanduser()
    folder = root / kind / hashlib.sha256(uri.rstrip("/").encode()).hexdigest()[:16]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def cache_lock(folder: Path) -> Iterator[None]:
    """Exclude the other processes of the node from a folder of the cache."""
    with locked(folder.with_name(f"{folder.name}.lock")):
        yield


def fetch_folder(uri: str) -> Path:
    """A local copy of the folder at `uri` with the same file sizes and times; copies only files that changed."""
    system, path = filesystem(uri)
    with reaching(uri):
        listed = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    files = {info.path.removeprefix(f"{path}/"): info for info in listed if info.is_file}
    if not files:
        raise UserError(f"{uri} holds no files; check the URI")
    folder = cache_folder("data", uri)

    def fetch(name: str) -> None:
        target, info = folder / name, files[name]
        if not target.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{uri} holds a file named {name}, which leads out of the folder; rename it")
        stat = target.stat() if target.exists() else None
        if stat is not None and (stat.st_size, stat.st_mtime_ns) == (info.size, info.mtime_ns or 0):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        with reaching(in_folder(uri, name)):
            download_file(system, info.path, partial)
        os.utime(partial, ns=(info.mtime_ns or 0, info.mtime_ns or 0))
        partial.replace(target)

    with cache_lock(folder), ThreadPoolExecutor(16) as pool:
        for old in [old for old in folder.rglob("*") if old.is_file()]:
            if old.relative_to(folder).as_posix() not in files:
                old.unlink()
        list(pool.map(fetch, files))
    return folder


def download_file(system: Any, source: str, target: Path) -> None:
    fs.copy_files(source, str(target), source_filesystem=system, destination_filesystem=fs.LocalFileSystem())


def upload_file(system: Any, source: Path, target: str) -> None:
    fs.copy_files(str(source), target, source_filesystem=fs.LocalFileSystem(), destination_filesystem=system)


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turn errors of the object store into a `UserError` that names `uri`."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{uri} cannot be copied or read ({error}); check the URI, its access and the disk") from error
