"""Codecs of teacher maps on disk: fp16, uint8, or the largest logits of each pixel; and their error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Kind = Literal["fp16", "uint8", "top_k"]
LARGEST = 65504.0
"""The largest number of fp16; larger values are clamped to it, which the stated error includes."""


@dataclass(frozen=True)
class MapCodec:
    """The encoding of a map of `shape` `(C, h, w)` at its native stride.

    - `fp16`: every value, rounded; relative error at most 2^-11, and 2^-25 below 6e-5.
    - `uint8`: 256 levels between the least and the greatest value of each channel of each image.
    - `top_k`: the `k` largest channels of each pixel in fp16, their indices, and one value for all other channels,
      chosen so that the softmax of the pixel keeps the sum of their probabilities.
    """

    shape: tuple[int, int, int]
    kind: Kind
    k: int = 0

    @property
    def columns(self) -> dict[str, tuple[type, tuple[int, ...]]]:
        """Type and shape of an image's value in each column, by the column's suffix to the name of the map."""
        channels, *size = self.shape
        if self.kind == "fp16":
            return {"": (np.float16, self.shape)}
        if self.kind == "uint8":
            return {"": (np.uint8, self.shape), ".range": (np.float32, (2, channels))}
        index = np.uint8 if channels <= 256 else np.int16
        return {"": (np.float16, (self.k + 1, *size)), ".index": (index, (self.k, *size))}

    @property
    def nbytes(self) -> int:
        """Bytes per image."""
        return sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in self.columns.values())

    def encode(self, map_bchw: Tensor) -> dict[str, Tensor]:
        """The columns of a batch of fp32 maps, on their device."""
        if self.kind == "fp16":
            return {"": _half(map_bchw)}
        if self.kind == "uint8":
            low_bc, high_bc = map_bchw.flatten(2).aminmax(dim=2)
            range_b2c = torch.stack([low_bc, (high_bc - low_bc) / 255], 1)
            low, step = (value[:, :, None, None] for value in range_b2c.unbind(1))
            levels = (map_bchw - low) / torch.where(step > 0, step, 1)
            return {"": levels.round().clamp(0, 255).to(torch.uint8), ".range": range_b2c}
        top = map_bchw.topk(self.k, 1)
        others = map_bchw.scatter(1, top.indices, -torch.inf).logsumexp(1, keepdim=True)
        rest = others - math.log(self.shape[0] - self.k)
        index = top.indices.to(torch.uint8 if self.shape[0] <= 256 else torch.int16)
        return {"": _half(torch.cat([top.values, rest], 1)), ".index": index}

    def decode(self, columns: dict[str, Tensor]) -> Tensor:
        """The fp32 maps `[B, C, h, w]` that were encoded as these columns, up to the error of the codec."""
        values = columns[""].float()
        if self.kind == "fp16":
            return values
        if self.kind == "uint8":
            low, step = (value[:, :, None, None] for value in columns[".range"].unbind(1))
            return values * step + low
        rest = values[:, self.k :].expand(-1, self.shape[0], -1, -1)
        return rest.scatter(1, columns[".index"].long(), values[:, : self.k])

    def to_json(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "kind": self.kind, "k": self.k}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> MapCodec:
        channels, height, width = facts["shape"]
        return cls((channels, height, width), facts["kind"], facts["k"])


def _half(values: Tensor) -> Tensor:
    return values.clamp(-LARGEST, LARGEST).half()


@dataclass
class MapError:
    """Distance of decoded maps from the teacher's. Holds sums, so that shards add up; `stated` returns means."""

    squares: float = 0.0
    values: float = 0.0
    largest: float = 0.0
    numbers: int = 0
    nats: float = 0.0
    changed: int = 0
    pixels: int = 0

    def add(self, map_bchw: Tensor, kept_bchw: Tensor, logits: bool) -> None:
        error = (map_bchw - kept_bchw).double()
        self.squares += float(error.square().sum())
        self.values += float(map_bchw.double().square().sum())
        self.largest = max(self.largest, float(error.abs().max()))
        self.numbers += error.numel()
        if logits:
            log_t, log_q = F.log_softmax(map_bchw.double(), 1), F.log_softmax(kept_bchw.double(), 1)
            self.nats += float((log_t.exp() * (log_t - log_q)).sum())
            self.changed += int((map_bchw.argmax(1) != kept_bchw.argmax(1)).sum())
            self.pixels += map_bchw[:, 0].numel()

    def merge(self, other: MapError) -> None:
        for name in ("squares", "values", "numbers", "nats", "changed", "pixels"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.largest = max(self.largest, other.largest)

    def stated(self) -> dict[str, float]:
        """`rms_error` and `max_error` in the map's own unit, `relative_error` (of root mean squares).

        For logits also `kl` (nats per pixel, KL(teacher || decoded)) and `classes_changed`,
        the share of pixels whose most probable class differs.
        """
        numbers = max(self.numbers, 1)
        facts = {
            "rms_error": math.sqrt(self.squares / numbers),
            "max_error": self.largest,
            "relative_error": math.sqrt(self.squares / self.values) if self.values else 0.0,
        }
        if self.pixels:
            facts |= {"kl": max(self.nats / self.pixels, 0.0), "classes_changed": self.changed / self.pixels}
        return facts
