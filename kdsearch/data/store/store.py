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
from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.data.reader import SPLITS, Reader
from kdsearch.data.registry import open_reader
from kdsearch.data.store.arrow_file import SCHEMA_VERSION, column_view, damaged, map_batch
from kdsearch.data.store.build import store_name, write_store
from kdsearch.data.store.file_digests import FileDigests
from kdsearch.errors import UserError
from kdsearch.io.targets import new_folders
from kdsearch.io.uris import in_folder, is_remote, local_path


def build_store(
    config: DataConfig,
    root: str | Path,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
    log: Callable[[str], None] | None = None,
) -> Store:
    """The store of `config`'s data set at `config.size` under the folder `root`; built unless it exists.

    `root` is a local folder or a URI of an object store (`remote.py`): then the store is built on this node and copied
    there. `progress(done, total)` is called after each sample. Several processes may build at once and produce one
    store; an interrupted build is continued. The same content at another place has the same store. `log` receives a
    sentence where a store of an earlier version is not used. `UserError` names missing, damaged or wrong files (the
    first ten of them, and their number), and labels from which nothing can be learned.
    """
    name = f"{config.name}-{config.size[0]}x{config.size[1]}"

    def build(root: Path, digests: FileDigests) -> Path:
        stores = sorted(root.glob(f"{name}-*"))
        if digests.complete or stores:
            # Perhaps a copy of a set that is known: its bytes are read faster than its images are decoded.
            content = digests.read_all(progress)
            folder = root / store_name(name, content)
            if folder.exists():
                digests.save()
                return folder
        if log is not None and (old := [store.name for store in stores if _is_of_version_1(store)]):
            log(
                f"{', '.join(old)} in {root} was made by an earlier version of kdsearch, which knew data by their "
                "times: the store is built again, and the old one may be deleted"
            )
        return write_store(root, name, digests, config.size, progress, threads)

    if is_remote(root):
        from kdsearch.data.store import remote
        from kdsearch.io.object_storage import filesystem

        filesystem(str(root))  # a URI that cannot be opened is reported before the data is read
    if not is_remote(root):
        with new_folders(local_path(root)):
            return _checked(Store.open(build(local_path(root), open_digests(config, local_path(root)))))
    with remote.building_for(str(root)) as folder:
        digests = open_digests(config, folder)
        found = store_name(name, digests.read_all(progress))
        digests.save()
        uri = in_folder(str(root), found)
        if not remote.has_store(uri):
            remote.push_store(build(folder, digests), uri)
            remote.keep(folder / found, uri)
    return _checked(Store.open(uri))


def _check_splits(reader: Reader) -> None:
    for split in SPLITS:
        if not reader.keys(split):
            raise UserError(f"data set '{reader.info.name}': the split {split} is empty; give it at least one image.")


def _checked(store: Store) -> Store:
    """`UserError` where a split of the store has no label at all, whichever version of kdsearch has built it."""
    for name in SPLITS:
        if not store.split(name).class_counts.any():
            raise UserError(
                f"data set '{store.info.name}': no pixel of the split {name} has a label at {store.size[0]}x"
                f"{store.size[1]}: all are {IGNORE_INDEX}; check its masks, the ids of the classes, and data.size."
            )
    return store


def open_digests(config: DataConfig, root: Path) -> FileDigests:
    """The files of `config`'s data set, with what the folder of stores `root` knows of their content."""
    reader = open_reader(config)
    _check_splits(reader)
    return FileDigests(root, reader, config.path or config.name)


def _is_of_version_1(store: Path) -> bool:
    try:
        return bool(json.loads((store / "meta.json").read_text())["schema_version"] == 1)
    except (OSError, ValueError, LookupError, TypeError):
        return False  # damaged, or a store of no version: opening it reports that


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
        self.notes: list[str] = meta.get("notes", [])
        """Oddities of the set, and samples that its reader left out; empty for stores of version 0.1."""
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
        if version not in (1, SCHEMA_VERSION):  # the reports of old studies show images of theirs
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
