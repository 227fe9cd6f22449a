"""The result of an evaluation: counts, and the numbers that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.config.protocol import EvalProtocol


@dataclass(frozen=True)
class ImageResult:
    """One image: its key in the split, and its mIoU over the classes of its own truth (NaN without valid pixels)."""

    key: str
    miou: float


@dataclass(frozen=True)
class Evaluation:
    """A network measured on a split. `counts_kk` are pixels: rows truth, columns prediction. IoUs are in [0, 1]."""

    dataset: str
    split: str
    classes: tuple[str, ...]
    protocol: EvalProtocol
    fingerprint: str
    """Digest of the split's keys, images and labels."""
    counts_kk: NDArray[np.int64]
    boundary_iou_k: NDArray[np.float64]
    images: tuple[ImageResult, ...]

    @property
    def iou_k(self) -> NDArray[np.float64]:
        """IoU of each class; NaN for one that is neither in truth nor in predictions."""
        hits = self.counts_kk.diagonal()
        union = self.counts_kk.sum(0) + self.counts_kk.sum(1) - hits
        return np.where(union > 0, hits / np.maximum(union, 1), np.nan)

    def miou_by(self, absent: str) -> float:
        """Mean over classes: those that are nowhere left out (`skip`), or counted with IoU 0 (`zero`)."""
        iou_k = self.iou_k
        known = iou_k[~np.isnan(iou_k)]
        return float(known.sum() / (len(iou_k) if absent == "zero" else len(known)))

    @property
    def miou(self) -> float:
        """Mean IoU by the protocol's convention."""
        return self.miou_by(self.protocol.absent)

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that the truth does not have."""
        return tuple(name for name, n in zip(self.classes, self.counts_kk.sum(1), strict=True) if n == 0)

    @property
    def pixel_accuracy(self) -> float:
        return float(self.counts_kk.trace() / self.counts_kk.sum())

    @property
    def boundary_iou(self) -> float:
        """Mean over the classes that have a boundary."""
        known = self.boundary_iou_k[~np.isnan(self.boundary_iou_k)]
        return float(known.mean()) if len(known) else math.nan

    def metrics(self) -> dict[str, float]:
        """Numbers by name, without NaN: miou, the other conventions, pixel_accuracy, boundary_iou, iou/CLASS."""
        named = {
            "miou": self.miou, "miou_skip": self.miou_by("skip"), "miou_zero": self.miou_by("zero"),
            "pixel_accuracy": self.pixel_accuracy, "boundary_iou": self.boundary_iou,
        }  # fmt: skip
        named |= {f"iou/{name}": float(iou) for name, iou in zip(self.classes, self.iou_k, strict=True)}
        return {name: value for name, value in named.items() if not math.isnan(value)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "dataset": self.dataset, "split": self.split, "images": len(self.images), "fingerprint": self.fingerprint,
            "protocol": {"digest": self.protocol.digest(), **self.protocol.model_dump(mode="json")},
            "metrics": self.metrics(), "absent": list(self.absent),
        }  # fmt: skip
