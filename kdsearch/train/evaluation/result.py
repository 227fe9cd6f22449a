"""The result of an evaluation: counts, and the numbers that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.config.protocol import EvalProtocol
from kdsearch.train.evaluation.confusion import ConfusionMatrix


@dataclass(frozen=True)
class ImageResult:
    """One image: its key in the split, and its mIoU over the classes of its own truth (NaN without valid pixels)."""

    key: str
    miou: float


@dataclass(frozen=True)
class Evaluation:
    """A network measured on a split. `matrix` counts all of its pixels, on the CPU. IoUs are in [0, 1]."""

    dataset: str
    split: str
    classes: tuple[str, ...]
    protocol: EvalProtocol
    fingerprint: str
    """Digest of the split's keys, images and labels."""
    matrix: ConfusionMatrix
    boundary_iou_k: NDArray[np.float64]
    images: tuple[ImageResult, ...]

    @property
    def counts_kk(self) -> NDArray[np.int64]:
        """Pixels: rows truth, columns prediction."""
        counts_kk: NDArray[np.int64] = self.matrix.counts_kk.numpy()
        return counts_kk

    @property
    def miou(self) -> float:
        """Mean IoU by the protocol's convention."""
        return self.matrix.miou(self.protocol.absent)

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that the truth does not have."""
        return tuple(name for name, n in zip(self.classes, self.counts_kk.sum(1), strict=True) if n == 0)

    @property
    def boundary_iou(self) -> float:
        """Mean over the classes that have a boundary."""
        known = self.boundary_iou_k[~np.isnan(self.boundary_iou_k)]
        return float(known.mean()) if len(known) else math.nan

    def metrics(self) -> dict[str, float]:
        """Numbers by name, without NaN: miou, the other conventions, pixel_accuracy, boundary_iou, iou/CLASS."""
        named = {
            "miou": self.miou, "miou_skip": self.matrix.miou("skip"), "miou_zero": self.matrix.miou("zero"),
            "pixel_accuracy": self.matrix.pixel_accuracy(), "boundary_iou": self.boundary_iou,
        }  # fmt: skip
        named |= {f"iou/{name}": iou for name, iou in zip(self.classes, self.matrix.iou_k().tolist(), strict=True)}
        return {name: value for name, value in named.items() if not math.isnan(value)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "dataset": self.dataset, "split": self.split, "images": len(self.images), "fingerprint": self.fingerprint,
            "protocol": {"digest": self.protocol.digest(), **self.protocol.model_dump(mode="json")},
            "metrics": self.metrics(), "absent": list(self.absent),
        }  # fmt: skip
