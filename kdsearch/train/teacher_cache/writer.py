"""Writes a cache of teacher maps: by any number of processes at once, each shard once, and on after a kill.

The shards lie in a hidden sibling folder, each written under another name, synced and renamed; whoever finds the last
one there adds `meta.json` and renames the folder. A process claims a shard by a lock on a file beside it. The system
drops the lock when the process ends, however it ends, so the shard of a dead process is free again.
"""

from __future__ import annotations

import errno
import fcntl
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

from kdsearch.data.store.file import sync_path
from kdsearch.data.store.temporary import BUILDING
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_json
from kdsearch.models.output import SegOutput
from kdsearch.train.teacher_cache.codec import MapError
from kdsearch.train.teacher_cache.reader import VERSION, CacheSpec, shard_name

BATCH = 8
"""Images that the teacher is asked about at once."""
WAIT_S = 0.2

Ask = Callable[[NDArray[np.int64]], SegOutput]
"""The teacher's output on the whole images of these rows, in fp32."""


def building_folder(folder: Path) -> Path:
    """Where the cache `folder` is while it is not finished."""
    return folder.with_name(f".{folder.name}{BUILDING}")


def images_written(folder: Path, spec: CacheSpec) -> int:
    """Images of the cache `folder` that are done, whoever is at it."""
    building = building_folder(folder)
    there = [len(spec.shard_range(shard)) for shard in range(spec.shards) if (building / shard_name(shard)).exists()]
    return spec.rows if folder.exists() else sum(there)  # asked in this order: it moves with what is in it


def write_cache(folder: Path, spec: CacheSpec, ask: Ask, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the cache `folder`, together with whoever else is at it; returns when it is there.

    `progress(images, of)` counts images that are done, by all processes. Raises `UserError` for a disk that is too
    small.
    """
    building = building_folder(folder)
    try:
        building.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {building} ({error.strerror}); give another --storage") from None
    _check_space(building, spec)
    while not folder.exists():
        free = _build_free_shards(building, folder, spec, ask, progress)
        if not free and not folder.exists():
            time.sleep(WAIT_S)  # the rest is in other hands
    shutil.rmtree(building, ignore_errors=True)  # where this process came after the end, and made it anew


def _build_free_shards(
    building: Path, folder: Path, spec: CacheSpec, ask: Ask, progress: Callable[[int, int], None] | None
) -> bool:
    """Build every shard that nobody has claimed, and finish when all are there. False when none was to be had."""
    built = False
    for shard in range(spec.shards):
        target = building / shard_name(shard)
        if target.exists():
            continue
        with _claimed(building, f"shard-{shard:05d}") as mine:
            # Asked in this order: the whole folder moves with the finished shards in it.
            if not mine or target.exists() or folder.exists():
                continue
            _write_shard(target, spec, shard, ask)
            built = True
        if progress is not None:
            progress(images_written(folder, spec), spec.rows)
    if all((building / shard_name(shard)).exists() for shard in range(spec.shards)):
        with _claimed(building, "finish") as mine:
            if mine and not folder.exists():
                _finish(building, folder, spec)
    return built


def _write_shard(target: Path, spec: CacheSpec, shard: int, ask: Ask) -> None:
    """Ask for the maps of a shard's rows and put them on disk, with what their form loses."""
    rows = np.array(spec.shard_range(shard))
    columns: dict[str, NDArray[Any]] = {
        name + suffix: np.empty((len(rows), *shape), dtype)
        for name, form in spec.forms.items()
        for suffix, (dtype, shape) in form.columns.items()
    }
    errors = {name: MapError() for name in spec.forms}
    for start in range(0, len(rows), BATCH):
        place = slice(start, start + BATCH)
        output = _ask_or_one_by_one(ask, rows[place])
        for name, form in spec.forms.items():
            map_bchw = (output.logits if name == "logits" else output.taps[name]).float()
            parts = form.encode(map_bchw)
            errors[name].add(map_bchw, form.decode(parts), logits=name == "logits")
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


def _ask_or_one_by_one(ask: Ask, rows: NDArray[np.int64]) -> SegOutput:
    try:
        return ask(rows)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
    outputs = [ask(rows[index : index + 1]) for index in range(len(rows))]

    def joined(read: Callable[[SegOutput], Tensor]) -> Tensor:
        return torch.cat([read(output) for output in outputs])

    taps = {name: joined(lambda output, name=name: output.taps[name]) for name in outputs[0].taps}  # type: ignore[misc]
    return SegOutput(joined(lambda output: output.logits), taps)


def _finish(building: Path, folder: Path, spec: CacheSpec) -> None:
    """Add up what the shards say, write `meta.json` and give the folder its name."""
    total = {name: MapError() for name in spec.forms}
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
        "maps": {name: form.to_json() for name, form in spec.forms.items()},
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
    for claim in folder.glob("*.claim"):  # not before: a claim that is made anew holds nobody off
        claim.unlink(missing_ok=True)


@contextmanager
def _claimed(building: Path, name: str) -> Iterator[bool]:
    """Whether this process has the claim `name` to itself; held to the end of the block."""
    try:
        lock = os.open(building / f"{name}.claim", os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:  # the folder has been finished and moved
        yield False
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = True
    except BlockingIOError:
        mine = False
    try:
        yield mine
    finally:
        os.close(lock)


def _check_space(building: Path, spec: CacheSpec) -> None:
    missing = [len(spec.shard_range(each)) for each in range(spec.shards) if not (building / shard_name(each)).exists()]
    needed, free = sum(missing) * spec.row_bytes + 2**20, shutil.disk_usage(building.parent).free
    if free < needed:
        raise UserError(
            f"{building.parent} has {free / 1e9:.1f} GB free, the teacher's maps need {needed / 1e9:.1f} GB; make "
            "room, or set teacher.cache to auto, logits or off, or teacher.cache_format to uint8"
        )
