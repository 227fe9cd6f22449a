"""Reader of the teacher cache: logits and taps of whole training images, memory-mapped and warped like the images.

A cache is a folder of Arrow files, each with the maps of consecutive images, and a `meta.json` that exists only when
the cache is complete. Cached maps differ from those of a live teacher in two ways that no format can mend: the teacher
has seen images without photometric jitter, and each whole image at its own scale instead of a zoomed crop.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdsearch.config.networks import AnyNetwork, without_weights
from kdsearch.data.loader import Batch
from kdsearch.data.store.arrow_file import column_view, damaged, map_batch
from kdsearch.data.views import warp_maps
from kdsearch.distill.base import Shapes
from kdsearch.models.seg_output import SegOutput
from kdsearch.train.teacher_cache.codec import MapCodec

VERSION = 1
SHARD_BYTES = 64 * 2**20
"""Approximate size of a file of maps: the work that a killed writer loses at most."""


@dataclass(frozen=True)
class CacheSpec:
    """The content of a cache, and everything that it depends on.

    `weights` is the digest of the teacher's weights, `data` the fingerprint of the data set, `size` that of the whole
    images, `codecs` the maps by name. `rows` counts images: those of the split, then with `next_frames` the next frame
    of each.
    """

    network: AnyNetwork
    weights: str
    data: str
    size: tuple[int, int]
    codecs: dict[str, MapCodec]
    images: int
    next_frames: bool = False

    @property
    def rows(self) -> int:
        return self.images * (2 if self.next_frames else 1)

    @property
    def shard_rows(self) -> int:
        """Images per file."""
        return max(1, min(256, SHARD_BYTES // self.row_bytes))

    @property
    def shards(self) -> int:
        return -(-self.rows // self.shard_rows)

    @property
    def row_bytes(self) -> int:
        return sum(codec.nbytes for codec in self.codecs.values())

    @property
    def nbytes(self) -> int:
        return self.rows * self.row_bytes

    def shard_range(self, shard: int) -> range:
        """The rows of a shard."""
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.rows))

    def folder(self, root: Path) -> Path:
        """The folder of the cache, which depends on the teacher, the data set, the size and the codecs."""
        network = without_weights(self.network)
        source = [VERSION, network.model_dump(mode="json"), self.weights, self.data, self.size]
        codecs = {name: codec.to_json() for name, codec in self.codecs.items()}
        content = [codecs, self.next_frames, self.shard_rows]
        return root / f"{network.arch}-{network.encoder}-{_digest(source)}-{_digest(content)}"

    def found(self, root: Path) -> Path | None:
        """A finished cache with these maps in these codecs, and perhaps more; None when there is none yet."""
        folder = self.folder(root)
        source = folder.name.rpartition("-")[0]
        for path in (folder, *sorted(root.glob(f"{source}-*"))):
            if path.exists():
                held = TeacherCache.read_meta(path)
                same = all(held["maps"].get(name) == codec.to_json() for name, codec in self.codecs.items())
                if same and held["next_frames"] >= self.next_frames:
                    return path
        return None


class TeacherCache:
    """An open cache. `codecs` are its maps by name, `errors` the error of each, `nbytes` its size on disk.

    `UserError` names a file that is missing, truncated or of another version.
    """

    def __init__(self, path: Path) -> None:
        meta = self.read_meta(path)
        self.path = path
        self.codecs = {name: MapCodec.from_json(facts) for name, facts in meta["maps"].items()}
        self.errors: dict[str, dict[str, float]] = meta["errors"]
        self.images: int = meta["images"]
        self.size: tuple[int, int] = (meta["size"][0], meta["size"][1])
        self.next_frames: bool = meta["next_frames"]
        self.shard_rows: int = meta["shard_rows"]
        self.nbytes = sum(facts["bytes"] for facts in meta["shards"])
        self._columns = [
            read_shard(path / shard_name(number), facts, self.codecs) for number, facts in enumerate(meta["shards"])
        ]

    @staticmethod
    def read_meta(path: Path) -> dict[str, Any]:
        file = path / "meta.json"
        try:
            meta = json.loads(file.read_text())
        except FileNotFoundError:
            raise damaged(file, "is missing") from None
        except (ValueError, UnicodeDecodeError) as error:
            raise damaged(file, f"is not JSON ({error})") from None
        if not isinstance(meta, dict) or meta.get("version") != VERSION:
            raise damaged(file, f"is not of version {VERSION}, which this kdsearch reads")
        return meta

    def whole(self, name: str, rows: NDArray[np.int64], device: torch.device | str = "cpu") -> Tensor:
        """The map `name` of whole images, fp32 `[B, C, h, w]`. Next frames have the rows from `images` on."""
        codec = self.codecs[name]
        parts = {}
        for suffix, (dtype, shape) in codec.columns.items():
            taken: NDArray[Any] = np.empty((len(rows), *shape), dtype)
            for place, row in enumerate(rows):
                shard, offset = divmod(int(row), self.shard_rows)
                taken[place] = self._columns[shard][name + suffix][offset]
            parts[suffix] = torch.from_numpy(taken).to(device)  # converted there: half the bytes travel
        return codec.decode(parts)


@dataclass(frozen=True)
class CachedTeacher:
    """Stands in for the teacher during training. `shapes` are those of the maps to read, at the size of a view."""

    cache: TeacherCache
    shapes: Shapes
    device: torch.device

    def __call__(self, batch: Batch) -> SegOutput:
        """The maps in the views of the batch; with a later frame, those of both frames in sequence."""
        rows, theta_b23 = batch.index.numpy(), batch.theta_b23
        height, width = batch.image_bchw.shape[-2:]
        size = (height, width)
        found = {name: [self._view(name, rows, theta_b23, size)] for name in self.shapes}
        if batch.next_image_bchw is not None:
            later = batch.next_theta_b23
            if later is None:  # the next image of a video, through the same view
                rows, later = rows + self.cache.images, theta_b23
            for name, views in found.items():
                views.append(self._view(name, rows, later, size))
        output = {name: views[0] if len(views) == 1 else torch.cat(views) for name, views in found.items()}
        return SegOutput(output.pop("logits"), output)

    def _view(self, name: str, rows: NDArray[np.int64], theta_b23: Tensor, size: tuple[int, int]) -> Tensor:
        # fp32 even where the step runs in bf16: positions in half precision would be off by pixels.
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            _, *cells = self.shapes[name]
            whole_bchw = self.cache.whole(name, rows, self.device)
            return warp_maps(whole_bchw, theta_b23, (cells[0], cells[1]), self.cache.size, size)


def shard_name(shard: int) -> str:
    return f"maps-{shard:05d}.arrow"


def read_shard(file: Path, facts: dict[str, Any], codecs: dict[str, MapCodec]) -> dict[str, NDArray[Any]]:
    """The columns of a shard, over the mapped file. `facts` are its `count` and `bytes`."""
    batch = map_batch(file, facts)
    return {
        name + suffix: column_view(batch, name + suffix, dtype, (facts["count"], *shape))
        for name, codec in codecs.items()
        for suffix, (dtype, shape) in codec.columns.items()
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
