"""The Arrow file of one split: its layout, writing and memory mapping.

The file is first allocated with zeros in place of pixels, so that a full disk is found before anything is decoded. Rows
are then filled with plain writes, in any order and from any thread. Writing through a mapping would save nothing, and a
full or failing disk would kill the process instead of raising an error.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdsearch.data.info import DatasetInfo
from kdsearch.errors import UserError
from kdsearch.io.disk import writing

SCHEMA_VERSION = 2
"""Version of the files of a store, in its `meta.json`. Version 1 had a fingerprint of paths and times."""

Layout = dict[str, tuple[type, tuple[int, ...]]]


def column_layout(info: DatasetInfo, size: tuple[int, int]) -> Layout:
    """Type and shape of a sample's value in each column of pixels."""
    layout: Layout = {"image": (np.uint8, (*size, info.channels)), "label": (np.uint8, size)}
    if info.video:
        layout["next_image"] = (np.uint8, (*size, info.channels))
        layout["flow"] = (np.float32, (*size, 2))
    return layout


def sample_bytes(layout: Layout) -> int:
    """Bytes of one sample in all columns."""
    return sum(_item_bytes(*column) for column in layout.values())


class StoreFile:
    """A split's allocated file, open for writing. `ValueError` if the file was not made by `allocate`."""

    def __init__(self, path: Path, keys: list[str], layout: Layout) -> None:
        self.path, self.layout = path, layout
        try:
            self._offsets = _offsets(path, keys, layout)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(str(error)) from error
        self._descriptor = os.open(path, os.O_WRONLY)

    @classmethod
    def allocate(cls, path: Path, keys: list[str], layout: Layout) -> StoreFile:
        """Write the file with zeros for all pixels. `DiskError` if the disk is full."""
        columns = [pa.array(keys, pa.string())]
        for dtype, shape in layout.values():
            item = _item_bytes(dtype, shape)
            # Pages of an anonymous mapping that are only read use no memory.
            zeros = mmap.mmap(-1, item * len(keys), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
            columns.append(
                pa.FixedSizeBinaryArray.from_buffers(pa.binary(item), len(keys), [None, pa.py_buffer(zeros)])
            )
        batch = pa.record_batch(columns, names=["key", *layout])
        with writing(path), path.open("wb") as file:
            with pa.ipc.new_file(pa.PythonFile(file), batch.schema) as writer:
                writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        return cls(path, keys, layout)

    def write(self, row: int, values: dict[str, NDArray[Any]]) -> None:
        """Write a sample's columns into its row."""
        for name, (dtype, shape) in self.layout.items():
            value: NDArray[Any] = np.ascontiguousarray(values[name], dtype)
            if value.shape != shape:
                raise ValueError(f"{name} is {value.shape}, the store needs {shape}")
            start, rest = self._offsets[name] + row * value.nbytes, value.data.cast("B")
            with writing(self.path):
                while rest:
                    written = os.pwrite(self._descriptor, rest, start)
                    start, rest = start + written, rest[written:]

    def sync(self) -> None:
        """Wait until everything written is on disk."""
        with writing(self.path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def damaged(file: Path, what: str) -> UserError:
    """The error for an unusable file of a store, with its remedy."""
    return UserError(f"{file} {what}; delete the folder {file.parent} and it will be built again")


def map_batch(file: Path, facts: dict[str, Any]) -> pa.RecordBatch:
    """The one record batch of an Arrow file, memory-mapped."""
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        raise damaged(file, "is missing") from None
    if size != facts["bytes"]:
        raise damaged(file, f"has {size} bytes instead of {facts['bytes']}")
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(file)))
        batch = reader.get_batch(0)
    except (pa.ArrowInvalid, OSError) as error:
        raise damaged(file, f"is damaged ({error})") from None
    if batch.num_rows != facts["count"]:
        raise damaged(file, f"has {batch.num_rows} samples instead of {facts['count']}")
    return batch


def column_view(batch: pa.RecordBatch, column: str, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """A column of fixed-size binary values as an array over the mapped memory."""
    values = batch.column(column).buffers()[1]
    return np.frombuffer(values, dtype, count=int(np.prod(shape))).reshape(shape)


def _item_bytes(dtype: type, shape: tuple[int, ...]) -> int:
    return np.dtype(dtype).itemsize * int(np.prod(shape))


def _offsets(path: Path, keys: list[str], layout: Layout) -> dict[str, int]:
    """The offset of each column of pixels in the file."""
    with pa.memory_map(str(path)) as source:
        start = source.read_buffer(1).address
        batch = pa.ipc.open_file(source).get_batch(0)
        if batch.schema.names != ["key", *layout] or batch.column("key").to_pylist() != keys:
            raise ValueError(f"{path} holds other columns or keys")
        for name, (dtype, shape) in layout.items():
            if batch.schema.field(name).type != pa.binary(_item_bytes(dtype, shape)):
                raise ValueError(f"{path}: column {name} is of another size")
        return {name: batch.column(name).buffers()[1].address - start for name in layout}
