"""The store: a data set decoded once, at one size, opened memory-mapped by every trial of a node.

A store is a folder with `train.arrow`, `val.arrow` and `meta.json`. The Arrow files hold one record batch each, so that
a column is one block of the file and a NumPy view of it needs no copy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdsearch.config.trial import DataConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.data.paths import local_path
from kdsearch.errors import UserError

SCHEMA_VERSION = 1


def build_store(
    config: DataConfig,
    root: str | Path,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Store:
    """The store of `config`'s data set at `config.size` under the folder `root`, built if it is not there yet.

    `progress(done, total)` is called after each sample. Several processes may build at once: one store results.
    `UserError` names all missing, damaged or wrong files (the first ten of them, and how many there are).
    """
    from kdsearch.data.reader import open_reader
    from kdsearch.data.store_build import write_store

    root = local_path(root)
    reader = open_reader(config)
    fingerprint = reader.fingerprint()
    height, width = config.size
    folder = root / f"{config.name}-{height}x{width}-{fingerprint[:12]}"
    if not folder.exists():
        write_store(folder, reader, fingerprint, config.size, progress, threads)
    return Store.open(folder)


class Split:
    """One split of a store; arrays are read-only views of the mapped file.

    `images` `[n, H, W, C]` and `labels` `[n, H, W]` are uint8; of video sets `next_images` is like `images` and `flows`
    float32 `[n, H, W, 2]` (x, y) in pixels, else both are None. `class_counts` are pixels a class.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        facts = store.meta["splits"][name]
        self.class_counts: NDArray[np.int64] = np.array(facts["class_counts"], np.int64)
        batch = _map_batch(store.path / f"{name}.arrow", facts)
        self.keys: list[str] = batch.column("key").to_pylist()
        height, width = store.size
        pixels = (len(self.keys), height, width)
        video, channels = store.info.video, store.info.channels
        self.images: NDArray[np.uint8] = _view(batch, "image", np.uint8, (*pixels, channels))
        self.labels: NDArray[np.uint8] = _view(batch, "label", np.uint8, pixels)
        self.next_images: NDArray[np.uint8] | None = None
        self.flows: NDArray[np.float32] | None = None
        if video:
            self.next_images = _view(batch, "next_image", np.uint8, (*pixels, channels))
            self.flows = _view(batch, "flow", np.float32, (*pixels, 2))

    def __len__(self) -> int:
        return len(self.keys)

    def __reduce__(self) -> tuple[Any, ...]:
        return Split, (self.store, self.name)


class Store:
    """A data set at one size. Pickles as its path."""

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path, self.meta = path, meta
        facts = meta["info"]
        self.info = DatasetInfo(
            name=facts["name"],
            classes=tuple(facts["classes"]),
            palette=tuple((r, g, b) for r, g, b in facts["palette"]),
            channels=facts["channels"],
            mean=tuple(facts["mean"]),
            std=tuple(facts["std"]),
            video=facts["video"],
        )
        self.size: tuple[int, int] = (meta["size"][0], meta["size"][1])
        self.fingerprint: str = meta["fingerprint"]
        self._splits = {name: Split(self, name) for name in meta["splits"]}

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open a store. `UserError` names the file that is missing, truncated or of another schema version."""
        path = local_path(path)
        meta_path = path / "meta.json"
        try:
            meta = json.loads(meta_path.read_text())
        except FileNotFoundError:
            raise _damaged(meta_path, "is missing") from None
        except (ValueError, UnicodeDecodeError) as error:
            raise _damaged(meta_path, f"is not JSON ({error})") from None
        version = meta.get("schema_version") if isinstance(meta, dict) else None
        if version != SCHEMA_VERSION:
            raise _damaged(meta_path, f"has schema version {version}, this kdsearch reads {SCHEMA_VERSION}")
        return cls(path, meta)

    def split(self, name: str) -> Split:
        """The split `"train"` or `"val"`."""
        return self._splits[name]

    def __reduce__(self) -> tuple[Any, ...]:
        return Store.open, (self.path,)


def _damaged(file: Path, what: str) -> UserError:
    return UserError(f"{file} {what}; delete the folder {file.parent} and it will be built again")


def _map_batch(file: Path, facts: dict[str, Any]) -> pa.RecordBatch:
    """The one record batch of an Arrow file, memory-mapped."""
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        raise _damaged(file, "is missing") from None
    if size != facts["bytes"]:
        raise _damaged(file, f"has {size} bytes instead of {facts['bytes']}")
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(file)))
        batch = reader.get_batch(0)
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(file, f"is damaged ({error})") from None
    if batch.num_rows != facts["count"]:
        raise _damaged(file, f"has {batch.num_rows} samples instead of {facts['count']}")
    return batch


def _view(batch: pa.RecordBatch, column: str, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """A column of fixed-size binary values as an array over the mapped memory."""
    values = batch.column(column).buffers()[1]
    return np.frombuffer(values, dtype, count=int(np.prod(shape))).reshape(shape)
