"""Writes a store, so that a half-written one is never seen.

Everything goes into a hidden sibling folder, which is renamed once all of it is on disk. The builder holds a lock on
that folder; the system drops the lock when the process ends, however it ends, so a folder whose lock is free is litter.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdsearch.data.images import resize_flow, resize_image, resize_label
from kdsearch.data.info import DatasetInfo
from kdsearch.data.reader import SPLITS, Reader, check_sample
from kdsearch.data.store import SCHEMA_VERSION
from kdsearch.errors import UserError

Columns = dict[str, NDArray[Any]]
BUILDING = ".building"
"""Ends the names of temporary folders."""
LISTED = 10
"""Bad files that an error message names."""


def write_store(
    folder: Path,
    reader: Reader,
    fingerprint: str,
    size: tuple[int, int],
    progress: Callable[[int, int], None] | None,
    threads: int | None,
) -> None:
    """Read every sample, resize it and write the store `folder`; leave one that another process wrote meanwhile."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {folder.parent} ({error.strerror}); choose another folder for stores") from None
    _remove_litter(folder.parent)
    keys = {split: reader.keys(split) for split in SPLITS}
    _check_space(folder.parent, reader.info, size, keys)
    with _temporary_folder(folder) as temporary:
        meta = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": fingerprint,
            "info": dataclasses.asdict(reader.info),
            "size": size,
            "splits": _write_splits(temporary, reader, keys, size, progress, threads),
        }
        (temporary / "meta.json").write_text(json.dumps(meta, indent=1))
        for path in (temporary / "meta.json", temporary):
            _sync(path)
        try:
            temporary.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        _sync(folder.parent)


def _write_splits(
    temporary: Path,
    reader: Reader,
    keys: dict[str, list[str]],
    size: tuple[int, int],
    progress: Callable[[int, int], None] | None,
    threads: int | None,
) -> dict[str, Any]:
    """Write the Arrow file of each split; returns what `meta.json` says about them."""
    total, done = sum(map(len, keys.values())), 0
    facts: dict[str, Any] = {}
    problems: list[str] = []
    # Threads: PIL decodes and resizes without the interpreter lock, and starting processes costs seconds each.
    with ThreadPoolExecutor(threads or min(16, os.cpu_count() or 1)) as pool:
        for split in SPLITS:
            columns = _staged_columns(temporary, reader.info, size, len(keys[split]))

            def fill(row: int, split: str = split, columns: Columns = columns) -> NDArray[np.int64] | str:
                try:
                    return _fill_row(columns, row, reader, split, keys[split][row], size)
                except UserError as error:
                    return str(error)

            class_counts = np.zeros(reader.info.num_classes, np.int64)
            for result in pool.map(fill, range(len(keys[split]))):
                if isinstance(result, str):
                    problems.append(result)
                else:
                    class_counts += result
                done += 1
                if progress is not None:
                    progress(done, total)
            if not problems:
                file = temporary / f"{split}.arrow"
                _write_arrow(file, keys[split], columns)
                facts[split] = {
                    "count": len(keys[split]),
                    "bytes": file.stat().st_size,
                    "class_counts": class_counts.tolist(),
                }
            for name in columns:
                (temporary / f"{name}.staged").unlink()
    if problems:
        more = f"\n  ... and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        listed = "".join(f"\n  {problem}" for problem in problems[:LISTED])
        raise UserError(f"{len(problems)} of {total} samples of '{reader.info.name}' cannot be used:{listed}{more}")
    return facts


def _column_layout(info: DatasetInfo, size: tuple[int, int]) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Type and shape of a sample's value in each column of pixels."""
    layout: dict[str, tuple[type, tuple[int, ...]]] = {
        "image": (np.uint8, (*size, info.channels)),
        "label": (np.uint8, size),
    }
    if info.video:
        layout["next_image"] = (np.uint8, (*size, info.channels))
        layout["flow"] = (np.float32, (*size, 2))
    return layout


def _staged_columns(temporary: Path, info: DatasetInfo, size: tuple[int, int], count: int) -> Columns:
    """An array a column, on disk: a record batch is written whole, and a data set may be larger than memory."""
    return {
        name: np.memmap(temporary / f"{name}.staged", dtype, "w+", shape=(count, *shape))
        for name, (dtype, shape) in _column_layout(info, size).items()
    }


def _fill_row(
    columns: Columns, row: int, reader: Reader, split: str, key: str, size: tuple[int, int]
) -> NDArray[np.int64]:
    """Read a sample into its row; returns its pixels a class at the stored size."""
    sample = reader.read(split, key)
    where = f"{reader.info.name} {split} sample '{key}'"
    check_sample(sample, reader.info, where)
    columns["image"][row] = resize_image(sample.image_hwc, size)
    label = resize_label(sample.label_hw, size)
    columns["label"][row] = label
    if reader.info.video:
        if sample.next_image_hwc is None or sample.flow_hw2 is None:
            raise UserError(f"{where} has no next frame or no flow, though the data set is a video set")
        columns["next_image"][row] = resize_image(sample.next_image_hwc, size)
        columns["flow"][row] = resize_flow(sample.flow_hw2, size)
    return np.bincount(label.ravel(), minlength=256)[: reader.info.num_classes]


def _write_arrow(file: Path, keys: list[str], columns: Columns) -> None:
    """Write keys and columns as one record batch, and wait until it is on disk."""
    arrays = [pa.array(keys, pa.string())]
    for column in columns.values():
        value = pa.binary(int(column[0].nbytes))
        arrays.append(pa.FixedSizeBinaryArray.from_buffers(value, len(keys), [None, pa.py_buffer(column)]))
    batch = pa.record_batch(arrays, names=["key", *columns])
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    _sync(file)


def _check_space(root: Path, info: DatasetInfo, size: tuple[int, int], keys: dict[str, list[str]]) -> None:
    """Writing to a mapped file on a full disk kills the process, so ask first."""
    layout = _column_layout(info, size)
    sample = sum(np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in layout.values())
    sizes = [sample * len(names) for names in keys.values()]
    needed, free = sum(sizes) + max(sizes) + 2**20, shutil.disk_usage(root).free  # the store, and one split staged
    if free < needed:
        raise UserError(f"{root} has {free / 1e9:.1f} GB free, the store needs {needed / 1e9:.1f} GB; make room")


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """A locked sibling of `folder`, removed at the end unless it was renamed."""
    while True:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=BUILDING, dir=folder.parent))
        lock = os.open(temporary, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if temporary.exists():  # else another process took it for litter before it was locked
            break
        os.close(lock)
    try:
        temporary.chmod(0o755)  # mkdtemp's 0700 would hide the store from other users of the node
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


def _remove_litter(root: Path) -> None:
    """Remove the temporary folders of builders that no longer live."""
    for path in root.glob(f".*{BUILDING}"):
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # gone meanwhile, or not a folder
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
