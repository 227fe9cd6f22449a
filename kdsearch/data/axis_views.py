"""Views without rotation on the CPU: rows, then columns, image by image.

Equal to `views.warp_labels` and `views.warp_images`, and several times faster: one index per row and column replaces
two coordinates per pixel, only the visible part of the source is converted, and the scratch memory of one image stays
in the processor's cache. No image's result depends on its batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Size = tuple[int, int]


def without_rotation(theta_b23: Tensor) -> bool:
    """Whether all views only scale, shift or flip."""
    return not (theta_b23[:, 0, 1].any() or theta_b23[:, 1, 0].any())


def nearest_labels(label_bhw: Tensor, theta_b23: Tensor, out_size: Size, outside: int) -> Tensor:
    """`views.warp_labels` for views without rotation."""
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

    `finish(b, part_chw)` converts the visible part of image `b`, float32 in [0, 255], in place before interpolation.
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
        # First the axis that shrinks more, or grows less.
        first, second = (1, 0) if rows.growth > columns.growth else (0, 1)
        between = taps[first].interpolate(part, first + 1, scratch[1], scratch[2])
        taps[second].interpolate(between, second + 1, scratch[0], scratch[2], out[b, :, rows.shown, columns.shown])
    return out


class _Taps:
    """The two source pixels and the weight of the second for each place of a view along one axis.

    `shown` is the slice of the view that overlaps the image, `source` the slice of the image that it reads. A part of
    the image, of `length` pixels, has a row of zeros at each edge that the view crosses; `within` is the rest.
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
        """Interpolate `part` along `dim` into `out`, or into the scratch memory `low`; `high` is scratch too."""
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
    """Positions of a view's pixel centres along an axis of the source (0 rows, 1 columns), in pixels."""
    row = 1 - axis
    centres = (2 * np.arange(out_pixels) + 1) / out_pixels - 1
    positions: NDArray[np.float64] = (theta[row, row] * centres + theta[row, 2] + 1) * (pixels / 2)
    return positions


def _run(inside: NDArray[np.bool_]) -> slice:
    """The slice where `inside` is true; a view's positions are monotonic, so there is only one."""
    places = np.flatnonzero(inside)
    return slice(places[0], places[-1] + 1) if len(places) else slice(0)


def _shaped(scratch: Tensor, shape: tuple[int, ...]) -> Tensor:
    return scratch[: int(np.prod(shape))].view(shape)
