"""Views without rotation on the CPU: rows and columns are taken one after the other, image by image.

They are what `views.warp_labels` and `views.warp_images` give in one step, several times faster: an index a row and a
column in place of two coordinates a pixel, no more of the source is converted than the view shows, and the scratch
memory of one image stays in the processor's cache. No image's result depends on the batch it is in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Size = tuple[int, int]


def without_rotation(theta_b23: Tensor) -> bool:
    """Whether all views only scale, shift and flip."""
    return not (theta_b23[:, 0, 1].any() or theta_b23[:, 1, 0].any())


def nearest_labels(label_bhw: Tensor, theta_b23: Tensor, out_size: Size, outside: int) -> Tensor:
    """What `views.warp_labels` gives, of views without rotation."""
    warped = label_bhw.new_full((len(label_bhw), *out_size), outside)
    for label, theta, out in zip(label_bhw.numpy(), theta_b23.double().numpy(), warped.numpy(), strict=True):
        taken = label
        shown = []
        for axis in (0, 1):
            place = np.floor(_positions(theta, axis, label.shape[axis], out_size[axis]))
            shown.append(_run((place >= 0) & (place < label.shape[axis])))
            taken = taken.take(place[shown[axis]].astype(np.int64), axis)
        out[tuple(shown)] = taken
    return warped


def bilinear_images(
    images: NDArray[np.uint8],
    theta_b23: Tensor,
    out_size: Size,
    finish: Callable[[int, Tensor], None],
) -> Tensor:
    """Views without rotation `[B, C, h, w]`, bilinear, of byte images `[B, H, W, C]`; 0 outside.

    `finish(b, part_chw)` turns the part of image `b` that its view shows, given as float32 in [0, 255], into what is to
    be interpolated, in place.
    """
    _, *size, channels = images.shape
    out = torch.zeros(len(images), channels, *out_size)
    largest = channels * (max(size[0], out_size[0]) + 2) * (max(size[1], out_size[1]) + 2)
    scratch = [torch.empty(largest) for _ in range(3)]
    for b, (image, theta) in enumerate(zip(images, theta_b23.double().numpy(), strict=True)):
        rows, columns = taps = [_Taps(theta, axis, size[axis], out_size[axis]) for axis in (0, 1)]
        part = _shaped(scratch[0], (channels, rows.length, columns.length)).zero_()
        shown = part[:, rows.within, columns.within]
        shown.copy_(torch.from_numpy(image[rows.source, columns.source].transpose(2, 0, 1).copy()))
        finish(b, shown)
        first, second = (1, 0) if rows.growth > columns.growth else (0, 1)  # what makes it smaller, or less large
        between = taps[first].interpolate(part, first + 1, scratch[1], scratch[2])
        taps[second].interpolate(between, second + 1, scratch[0], scratch[2], out[b, :, rows.shown, columns.shown])
    return out


class _Taps:
    """The two source pixels and the weight of the second for each place of a view along one axis.

    `shown` is the slice of the view that shows anything, `source` the slice of the image that it reads. A part of the
    image, of `length` pixels, has a row of zeros on the sides where the view looks over the edge; `within` is the rest.
    """

    def __init__(self, theta: NDArray[np.float64], axis: int, pixels: int, out_pixels: int) -> None:
        position = _positions(theta, axis, pixels, out_pixels) - 0.5
        self.shown = _run((position > -1) & (position < pixels))
        position = position[self.shown]
        low = np.floor(position).astype(np.int64)
        self.weight = torch.from_numpy((position - low).astype(np.float32))
        start, stop = (int(low.min()), int(low.max()) + 2) if len(low) else (0, 0)
        self.index, self.length = torch.from_numpy(low - start), stop - start
        self.source = slice(max(start, 0), min(stop, pixels))
        self.within = slice(self.source.start - start, self.source.stop - start)
        self.growth = len(low) / max(self.length, 1)

    def interpolate(self, part: Tensor, dim: int, low: Tensor, high: Tensor, out: Tensor | None = None) -> Tensor:
        """`part` along `dim`, in `out` or else in the scratch memory `low`; `high` is scratch too."""
        shape = (*part.shape[:dim], len(self.index), *part.shape[dim + 1 :])
        ends, weight = (_shaped(low, shape), _shaped(high, shape)), self.weight
        for step, end in enumerate(ends):
            if dim == part.dim() - 1:
                torch.gather(part, dim, (self.index + step).expand(shape), out=end)
            else:
                torch.index_select(part, dim, self.index + step, out=end)
                weight = self.weight[:, None]
        return torch.lerp(*ends, weight, out=ends[0] if out is None else out)


def _positions(theta: NDArray[np.float64], axis: int, pixels: int, out_pixels: int) -> NDArray[np.float64]:
    """Where the pixel centres of a view lie along an axis of the source (0 rows, 1 columns), in pixels."""
    row = 1 - axis
    centres = (2 * np.arange(out_pixels) + 1) / out_pixels - 1
    positions: NDArray[np.float64] = (theta[row, row] * centres + theta[row, 2] + 1) * (pixels / 2)
    return positions


def _run(inside: NDArray[np.bool_]) -> slice:
    """Where `inside` is true, which is in one run: a view's places come one after the other."""
    places = np.flatnonzero(inside)
    return slice(places[0], places[-1] + 1) if len(places) else slice(0)


def _shaped(scratch: Tensor, shape: tuple[int, ...]) -> Tensor:
    return scratch[: int(np.prod(shape))].view(shape)
