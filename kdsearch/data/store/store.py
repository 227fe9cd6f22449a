"""The store: a data set decoded once, at one size, and memory-mapped by every trial of a node.

A store is a folder with `train.arrow`, `val.arrow` and `meta.json`. The Arrow files hold one record batch each, so that
a column is one block of the file and a NumPy view of it needs no copy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.config.data import DataConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.data.reader import Reader
from kdsearch.data.registry import open_reader
from kdsearch.data.store.arrow_file import SCHEMA_VERSION, column_view, damaged, map_batch
from kdsearch.data.store.build import write_store
from kdsearch.io.targets import new_folders
from kdsearch.io.uris import in_folder, is_remote, local_path


def build_store(
    config: DataConfig,
    root: str | Path,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Store:
    """The store of `config`'s data set at `config.size` under the folder `root`; built unless it exists.

    `root` is a local folder or a URI of an object store (`remote.py`): then the store is built on this node and copied
    there. `progress(done, total)` is called after each sample. Several processes may build at once and produce one
    store; an interrupted build is continued. `UserError` names missing, damaged or wrong files (the first ten of them,
    and their number).
    """

    def build(root: Path, reader: Reader, fingerprint: str) -> Path:
        if not (root / name).exists():
            with new_folders(root):
                write_store(root / name, reader, fingerprint, config.size, progress, threads)
        return root / name

    if is_remote(root):
        from kdsearch.data.store import remote
        from kdsearch.io.object_storage import filesystem

        filesystem(str(root))  # a URI that cannot be opened is reported before the data is read
    reader = open_reader(config)
    fingerprint = reader.fingerprint()
    name = f"{config.name}-{config.size[0]}x{config.size[1]}-{fingerprint[:12]}"
    if not is_remote(root):
        return Store.open(build(local_path(root), reader, fingerprint))
    uri = in_folder(str(root), name)
    with remote.building_for(str(root)) as folder:
        if not remote.has_store(uri):
            remote.push_store(build(folder, reader, fingerprint), uri)
            remote.keep(folder / name, uri)
    return Store.open(uri)


class Split:
    """One split of a store; arrays are read-only views of the mapped file.

    `images` `[n, H, W, C]` and `labels` `[n, H, W]` are uint8; of video sets `next_images` is like `images` and `flows`
    float32 `[n, H, W, 2]` (x, y) in pixels, else both are None. `class_counts` are pixels per class.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        facts = store.meta["splits"][name]
        self.class_counts: NDArray[np.int64] = np.array(facts["class_counts"], np.int64)
        batch = map_batch(store.path / f"{name}.arrow", facts)
        self.keys: list[str] = batch.column("key").to_pylist()
        height, width = store.size
        pixels = (len(self.keys), height, width)
        video, channels = store.info.video, store.info.channels
        self.images: NDArray[np.uint8] = column_view(batch, "image", np.uint8, (*pixels, channels))
        self.labels: NDArray[np.uint8] = column_view(batch, "label", np.uint8, pixels)
        self.next_images: NDArray[np.uint8] | None = None
        self.flows: NDArray[np.float32] | None = None
        if video:
            self.next_images = column_view(batch, "next_image", np.uint8, (*pixels, channels))
            self.flows = column_view(batch, "flow", np.float32, (*pixels, 2))

    def __len__(self) -> int:
        return len(self.keys)

    def __reduce__(self) -> tuple[Any, ...]:
        return Split, (self.store, self.name)


class Store:
    """A data set at one size, in the local folder `path`. Pickled by `source`, its path or URI."""

    def __init__(self, path: Path, meta: dict[str, Any], source: str | Path | None = None) -> None:
        self.path, self.meta, self.source = path, meta, source or path
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
        """Open a store; for a URI of an object store, its copy on this node.

        `UserError` names the file that is missing, truncated or of another schema version.
        """
        source, path = path, _local_copy(path)
        meta_path = path / "meta.json"
        try:
            meta = json.loads(meta_path.read_text())
        except FileNotFoundError:
            raise damaged(meta_path, "is missing") from None
        except (ValueError, UnicodeDecodeError) as error:
            raise damaged(meta_path, f"is not JSON ({error})") from None
        version = meta.get("schema_version") if isinstance(meta, dict) else None
        if version != SCHEMA_VERSION:
            raise damaged(meta_path, f"has schema version {version}, this kdsearch reads {SCHEMA_VERSION}")
        return cls(path, meta, source if is_remote(source) else path)

    def split(self, name: str) -> Split:
        """The split `"train"` or `"val"`."""
        return self._splits[name]

    def __reduce__(self) -> tuple[Any, ...]:
        return Store.open, (self.source,)


def _local_copy(path: str | Path) -> Path:
    if not is_remote(path):
        return local_path(path)
    from kdsearch.data.store.remote import fetch_store

    return fetch_store(str(path))
