"""Writer of the teacher cache: any number of processes share the work, and a killed process costs one shard.

The shards lie in a hidden sibling of the cache's folder, each written under a temporary name, synced and renamed. The
process that finds all of them there adds `meta.json` and renames the folder. A process claims a shard by a lock on a
file beside it; the system releases the lock when the process ends, so the shard of a dead process is free again.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdsearch.data.store.temporary import BUILDING
from kdsearch.errors import UserError
from kdsearch.io.atomic import sync_path, write_json
from kdsearch.io.locks import take
from kdsearch.models.seg_output import SegOutput
from kdsearch.train.teacher_cache.codec import MapError
from kdsearch.train.teacher_cache.reader import VERSION, CacheSpec, shard_name

BATCH = 8
"""Images per forward pass of the teacher."""
WAIT_S = 0.2

TeacherForward = Callable[[NDArray[np.int64]], SegOutput]
"""The teacher's output for the whole images of these rows, in fp32."""


def building_folder(folder: Path) -> Path:
    """The folder in which the unfinished cache `folder` is written."""
    return folder.with_name(f".{folder.name}{BUILDING}")


def images_written(folder: Path, spec: CacheSpec) -> int:
    """Images in the cache `folder`, by all of its writers."""
    building = building_folder(folder)
    there = [len(spec.shard_range(shard)) for shard in range(spec.shards) if (building / shard_name(shard)).exists()]
    return spec.rows if folder.exists() else sum(there)  # tested last: the shards move with it


def write_cache(
    folder: Path, spec: CacheSpec, forward: TeacherForward, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write the cache `folder`, together with other processes that do so; returns when it is complete.

    `progress(images, of)` counts the images of all processes. `UserError` for a disk that is too small.
    """
    building = building_folder(folder)
    try:
        building.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {building} ({error.strerror}); give another --storage") from None
    _check_space(building, spec)
    while not folder.exists():
        written = _write_free_shards(building, folder, spec, forward, progress)
        if not written and not folder.exists():
            time.sleep(WAIT_S)  # other processes hold the remaining shards
    shutil.rmtree(building, ignore_errors=True)  # exists again if this process started after the cache was complete


def _write_free_shards(
    building: Path, folder: Path, spec: CacheSpec, forward: TeacherForward, progress: Callable[[int, int], None] | None
) -> bool:
    """Write every unclaimed shard, and finish the cache when all are there. False if every shard was claimed."""
    written = False
    for shard in range(spec.shards):
        target = building / shard_name(shard)
        if target.exists():
            continue
        with _claimed(building, f"shard-{shard:05d}") as mine:
            # Tested in this order: renaming the folder moves the finished shards.
            if not mine or target.exists() or folder.exists():
                continue
            _write_shard(target, spec, shard, forward)
            written = True
        if progress is not None:
            progress(images_written(folder, spec), spec.rows)
    if all((building / shard_name(shard)).exists() for shard in range(spec.shards)):
        with _claimed(building, "finish") as mine:
            if mine and not folder.exists():
                _finish(building, folder, spec)
    return written


def _write_shard(target: Path, spec: CacheSpec, shard: int, forward: TeacherForward) -> None:
    """Compute the maps of a shard's rows and write them with the error of their codec."""
    rows = np.array(spec.shard_range(shard))
    columns: dict[str, NDArray[Any]] = {
        name + suffix: np.empty((len(rows), *shape), dtype)
        for name, codec in spec.codecs.items()
        for suffix, (dtype, shape) in codec.columns.items()
    }
    errors = {name: MapError() for name in spec.codecs}
    for start in range(0, len(rows), BATCH):
        place = slice(start, start + BATCH)
        output = _forward_or_one_by_one(forward, rows[place])
        for name, codec in spec.codecs.items():
            map_bchw = (output.logits if name == "logits" else output.taps[name]).float()
            parts = codec.encode(map_bchw)
            errors[name].add(map_bchw, codec.decode(parts), logits=name == "logits")
            for suffix, values in parts.items():
                columns[name + suffix][place] = values.cpu().numpy()
    metadata = {b"errors": json.dumps({name: asdict(error) for name, error in errors.items()}).encode()}
    arrays = [
        pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(int(column[0].nbytes)), len(rows), [None, pa.py_buffer(np.ascontiguousarray(column))]
        )
        for column in columns.values()
    ]
    batch = pa.record_batch(arrays, names=list(columns)).replace_schema_metadata(metadata)
    partial = target.with_suffix(".partial")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    sync_path(partial)
    partial.rename(target)
    sync_path(target.parent)


def _forward_or_one_by_one(forward: TeacherForward, rows: NDArray[np.int64]) -> SegOutput:
    try:
        return forward(rows)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
    outputs = [forward(rows[index : index + 1]) for index in range(len(rows))]

    def joined(read: Callable[[SegOutput], Tensor]) -> Tensor:
        return torch.cat([read(output) for output in outputs])

    taps = {name: joined(lambda output, name=name: output.taps[name]) for name in outputs[0].taps}  # type: ignore[misc]
    return SegOutput(joined(lambda output: output.logits), taps)


def _finish(building: Path, folder: Path, spec: CacheSpec) -> None:
    """Add up the errors of the shards, write `meta.json` and rename the folder."""
    total = {name: MapError() for name in spec.codecs}
    shards: list[dict[str, Any]] = []
    for shard in range(spec.shards):
        file = building / shard_name(shard)
        with pa.memory_map(str(file)) as source:
            stated = json.loads(pa.ipc.open_file(source).schema.metadata[b"errors"])
        for name, error in stated.items():
            total[name].merge(MapError(**error))
        shards.append({"count": len(spec.shard_range(shard)), "bytes": file.stat().st_size})
    meta = {
        "version": VERSION,
        "network": spec.network.model_dump(mode="json"),
        "weights": spec.weights,
        "data": spec.data,
        "size": spec.size,
        "images": spec.images,
        "next_frames": spec.next_frames,
        "shard_rows": spec.shard_rows,
        "maps": {name: codec.to_json() for name, codec in spec.codecs.items()},
        "errors": {name: error.stated() for name, error in total.items()},
        "shards": shards,
    }
    write_json(building / "meta.json", meta)
    sync_path(building)
    try:
        building.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    sync_path(folder.parent)
    for claim in folder.glob("*.claim"):  # not earlier: a new claim file would not exclude the holder of the old one
        claim.unlink(missing_ok=True)


@contextmanager
def _claimed(building: Path, name: str) -> Iterator[bool]:
    """Whether this process got the claim `name`, which it holds to the end of the block."""
    try:
        lock = take(building / f"{name}.claim")
    except FileNotFoundError:  # the folder has been finished and moved
        lock = None
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _check_space(building: Path, spec: CacheSpec) -> None:
    missing = [len(spec.shard_range(each)) for each in range(spec.shards) if not (building / shard_name(each)).exists()]
    needed, free = sum(missing) * spec.row_bytes + 2**20, shutil.disk_usage(building.parent).free
    if free < needed:
        raise UserError(
            f"{building.parent} has {free / 1e9:.1f} GB free, the teacher's maps need {needed / 1e9:.1f} GB; make "
            "room, or set teacher.cache to auto, logits or off, or teacher.cache_format to uint8"
        )
