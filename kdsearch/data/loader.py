"""Batches of a split, made on the training device.

There are no loader processes. The store is memory-mapped and holds decoded images, so a batch is one indexed copy of
bytes, and all further arithmetic runs on the device in batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdsearch.config.data import DataConfig
from kdsearch.data.axis_views import bilinear_images, without_rotation
from kdsearch.data.colours import finish
from kdsearch.data.info import DatasetInfo
from kdsearch.data.store.store import Split
from kdsearch.data.views import (
    Size,
    flow_between,
    flow_of_view,
    identity_views,
    inside,
    jitter_factors,
    next_views,
    photometric,
    random_views,
    warp_images,
    warp_labels,
)
from kdsearch.errors import UserError


@dataclass
class Batch:
    """Images and labels of one step on one rank.

    `image_bchw` is float32, normalised by the data set's mean and std; `label_bhw` int64 with `IGNORE_INDEX`; `index`
    int64 `[B]` (on the CPU) is each sample's row in the split. `theta_b23` is the view, with which cached teacher maps
    are warped; `inside_bhw` (bool) its pixels that show the image, None where all do. With frames, `next_image_bchw` is
    the later frame with the same jitter, `flow_b2hw` the flow to it in pixels of the view, `next_inside_bhw` as
    `inside_bhw`; `next_theta_b23` is set where the later frame is another view of the same image.
    """

    image_bchw: Tensor
    label_bhw: Tensor
    index: Tensor
    theta_b23: Tensor
    next_image_bchw: Tensor | None = None
    flow_b2hw: Tensor | None = None
    next_theta_b23: Tensor | None = None
    inside_bhw: Tensor | None = None
    next_inside_bhw: Tensor | None = None

    def tensor_split(self, parts: int) -> list[Batch]:
        """This batch, split into `parts` of (nearly) equal size."""
        columns = [
            (None,) * parts if column is None else column.tensor_split(parts)
            for column in (getattr(self, field.name) for field in fields(self))
        ]
        return [Batch(*part) for part in zip(*columns, strict=True)]


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Whole batches of an epoch; a split smaller than one batch fills it with repeats."""
    return max(1, images // batch_size)


class Batches:
    """The batches that one rank of a trial trains and validates on.

    `batch_size` counts images per step over all ranks. The order of an epoch, its views and its jitter depend on
    (seed, epoch) alone, so any number of ranks sees the same global batches. `frames` adds a later frame: the next one
    of a video set in the same view, or (in training alone) a second view of the same image with exact flow.
    """

    def __init__(
        self,
        split: Split,
        info: DatasetInfo,
        config: DataConfig,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        frames: Literal["video", "views"] | None = None,
    ) -> None:
        if batch_size % world_size:
            raise UserError(
                f"batch size {batch_size} does not divide over {world_size} workers; "
                f"use {batch_size // world_size * world_size or world_size}"
            )
        if frames == "video" and split.next_images is None:
            raise UserError(
                f"data set '{info.name}' has single images, no next frames; "
                "set data.frames to views and data.consistency to false"
            )
        self.split, self.config, self.seed, self.frames = split, config, seed, frames
        self.batch_size, self.local_size = batch_size, batch_size // world_size
        self.rank, self.world_size = rank, world_size
        self.device = torch.device(device)
        self.mean_c11 = torch.tensor(info.mean, device=self.device)[:, None, None]
        self.std_c11 = torch.tensor(info.std, device=self.device)[:, None, None]

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a training epoch, the same on every rank."""
        return steps_per_epoch(len(self.split), self.batch_size)

    def train(self, epoch: int) -> Iterator[Batch]:
        """Random views in the random order of `epoch`.

        The last incomplete global batch is dropped; a split smaller than one batch repeats its images to fill it.
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.split))
        order = np.resize(order, self.steps_per_epoch * self.batch_size)
        for start in range(self.rank * self.local_size, len(order), self.batch_size):
            yield self._train_batch(epoch, order[start : start + self.local_size])

    def val(self) -> Iterator[Batch]:
        """Whole images in order, each exactly once over all ranks; ranks may differ in their number of batches."""
        own = np.array_split(np.arange(len(self.split)), self.world_size)[self.rank]
        for start in range(0, len(own), self.local_size):
            rows = own[start : start + self.local_size]
            batch = Batch(
                image_bchw=self.whole_images(rows),
                label_bhw=self._take(self.split.labels, rows).long(),
                index=torch.from_numpy(rows),
                theta_b23=identity_views(len(rows)).to(self.device),
            )
            if self.frames == "video":
                batch.next_image_bchw = self.whole_images(rows, next_frame=True)
                batch.flow_b2hw = self._take(self.split.flows, rows).permute(0, 3, 1, 2)
            yield batch

    def whole_images(self, rows: NDArray[np.int64], next_frame: bool = False) -> Tensor:
        """Whole images `[B, C, H, W]` or their next frames, as in `val`: normalised, without view or jitter."""
        images = self.split.next_images if next_frame else self.split.images
        if self.device.type != "cpu":
            return self._normalise(self._unit(images, rows))
        assert images is not None
        out = torch.empty(len(rows), images.shape[3], *images.shape[1:3])
        for row, whole in zip(rows, out, strict=True):
            whole.copy_(torch.from_numpy(images[row].transpose(2, 0, 1).copy()))
            finish(whole, images[row], None, self.mean_c11, self.std_c11)
        return out

    def _train_batch(self, epoch: int, rows: NDArray[np.int64]) -> Batch:
        augment, size = self.config.augment, self.split.store.size
        crop = self.config.crop or size
        drawn = random_views(self.seed, epoch, rows, size, crop, augment)
        theta = drawn.to(self.device)

        def view(images: NDArray[np.uint8] | None, theta_b23: Tensor) -> Tensor:
            if self.device.type == "cpu" and without_rotation(theta_b23):
                return self._upright_view(images, epoch, rows, theta_b23, crop)
            jittered = photometric(self._unit(images, rows), self.seed, epoch, rows, augment.jitter)
            return warp_images(self._normalise(jittered), theta_b23, crop)

        labels = warp_labels(self._take(self.split.labels, rows), theta, crop)
        batch = Batch(view(self.split.images, theta), labels.long(), torch.from_numpy(rows), theta)
        batch.inside_bhw = self._inside(drawn, crop)
        if self.frames == "video":
            batch.next_image_bchw = view(self.split.next_images, theta)
            batch.flow_b2hw = flow_of_view(self._take(self.split.flows, rows).permute(0, 3, 1, 2), theta, crop)
            batch.next_inside_bhw = batch.inside_bhw
        elif self.frames == "views":
            drawn = next_views(drawn, self.seed, epoch, rows, crop, augment.motion)
            later = drawn.to(self.device)
            batch.next_image_bchw = view(self.split.images, later)
            batch.flow_b2hw = flow_between(theta, later, crop)
            batch.next_theta_b23 = later
            batch.next_inside_bhw = self._inside(drawn, crop)
        return batch

    def _inside(self, theta_b23: Tensor, crop: Size) -> Tensor | None:
        return inside(theta_b23, self.split.store.size, crop, self.device)

    def _upright_view(
        self, images: NDArray[np.uint8] | None, epoch: int, rows: NDArray[np.int64], theta_b23: Tensor, crop: Size
    ) -> Tensor:
        """Views without rotation of jittered, normalised images, on the CPU."""
        assert images is not None
        taken, strength = images[rows], self.config.augment.jitter
        factors = [None] * len(rows) if strength == 0 else jitter_factors(self.seed, epoch, rows, strength)

        def finished(b: int, part_chw: Tensor) -> None:
            finish(part_chw, taken[b], factors[b], self.mean_c11, self.std_c11)

        return bilinear_images(taken, theta_b23, crop, finished)

    def _take(self, column: NDArray[Any] | None, rows: NDArray[np.int64]) -> Tensor:
        assert column is not None
        return torch.from_numpy(column[rows]).to(self.device)

    def _unit(self, images: NDArray[np.uint8] | None, rows: NDArray[np.int64]) -> Tensor:
        """Images as float32 in [0, 1], `[B, C, H, W]`; bytes travel to the device, not floats."""
        return self._take(images, rows).permute(0, 3, 1, 2).contiguous().float().div_(255)

    def _normalise(self, image_bchw: Tensor) -> Tensor:
        return (image_bchw - self.mean_c11) / self.std_c11
