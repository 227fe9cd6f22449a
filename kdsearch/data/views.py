"""Random views of training images: per sample one 2x3 affine matrix for geometry, and factors for colour.

A matrix `theta` maps normalised coordinates of the view to those of the source, as in `torch.nn.functional.affine_grid`
with `align_corners=False`: (-1, -1) and (1, 1) are the outer corners of the corner pixels. The same matrix warps the
image and any map of it at another stride, whose cells lie where `map_grid` has them. Outside the source a view shows 0
in images, which is the mean colour once they are normalised, and `IGNORE_INDEX` in labels; `inside` marks the others.

All random numbers depend on (seed, epoch, index of the sample) alone, never on the batch or the process.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kdsearch.config.data import Augment
from kdsearch.data.axis_views import nearest_labels, without_rotation
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.map_grid import cell_positions

Size = tuple[int, int]
Indices = Sequence[int] | NDArray[np.int64]
ZOOM, TOP, LEFT, FLIP, BRIGHTNESS, CONTRAST, SATURATION, THERMAL = range(8)
NEXT_ZOOM, NEXT_ANGLE, NEXT_X, NEXT_Y = range(8, 12)
GREY = (0.2989, 0.587, 0.114)  # torchvision's luma


def random_views(seed: int, epoch: int, indices: Indices, size: Size, crop: Size, augment: Augment) -> Tensor:
    """Matrices `theta_b23` (float32, CPU) of random views of `crop` (height, width) pixels.

    A view equals a resize of the image of `size` by a factor from `augment.scale`, a crop at a random place and a
    random flip. An image smaller than the crop after resizing lies at a random place in it.
    """
    low, high = augment.scale
    zoom = low + (high - low) * _uniform(seed, epoch, indices, ZOOM)
    sign = np.where(_uniform(seed, epoch, indices, FLIP) < augment.flip, -1.0, 1.0)
    theta = np.zeros((len(zoom), 2, 3))
    for row, axis, lot, direction in ((0, 1, LEFT, sign), (1, 0, TOP, 1.0)):
        resized = zoom * size[axis]
        offset = (resized - crop[axis]) * _uniform(seed, epoch, indices, lot)
        theta[:, row, row] = direction * crop[axis] / resized
        theta[:, row, 2] = (crop[axis] + 2 * offset) / resized - 1
    return torch.from_numpy(theta.astype(np.float32))


def next_views(theta_b23: Tensor, seed: int, epoch: int, indices: Indices, crop: Size, motion: float) -> Tensor:
    """A second view near each of `theta_b23`, both of `crop` pixels, as if the camera had moved a little.

    It is shifted by up to `motion` times the view's size, turned by up to `motion` radians about its centre, and zoomed
    in or out by up to a factor `1 + motion`. Float32, on the device of `theta_b23`.
    """
    turn, shift_x, shift_y, zoom = (
        2 * _uniform(seed, epoch, indices, lot) - 1 for lot in (NEXT_ANGLE, NEXT_X, NEXT_Y, NEXT_ZOOM)
    )
    scale, angle = (1 + motion) ** zoom, motion * turn
    aspect = crop[0] / crop[1]  # coordinates are shares of each side: a rotation in pixels is a shear in them
    move = np.zeros((len(angle), 3, 3))
    move[:, 0, 0] = move[:, 1, 1] = scale * np.cos(angle)
    move[:, 0, 1], move[:, 1, 0] = -scale * np.sin(angle) * aspect, scale * np.sin(angle) / aspect
    move[:, 0, 2], move[:, 1, 2] = 2 * motion * shift_x, 2 * motion * shift_y
    move[:, 2, 2] = 1
    moved: Tensor = theta_b23.double() @ torch.from_numpy(move).to(theta_b23.device)
    return moved.to(theta_b23.dtype)


def identity_views(count: int) -> Tensor:
    """Matrices `theta_b23` of the whole image, unchanged."""
    return torch.eye(2, 3).expand(count, 2, 3)


def warp_images(image_bchw: Tensor, theta_b23: Tensor, out_size: Size) -> Tensor:
    """The views of normalised images, bilinear, in `out_size`; 0 outside."""
    return _warp(image_bchw, theta_b23, out_size, "bilinear", "zeros")


def warp_maps(map_bchw: Tensor, theta_b23: Tensor, out_size: Size, image_size: Size, view_size: Size) -> Tensor:
    """Maps of the views, with cells for `out_size`, from maps of whole images at any stride; bilinear.

    `image_size` and `view_size` are in pixels. Outside the image they have the nearest border value, which no term
    reads: a value from outside would be mixed into the cells at the border.
    """
    v, u = (
        (2 * cell_positions(cells, pixels, map_bchw.device) + 1) / pixels - 1
        for cells, pixels in zip(out_size, view_size, strict=True)
    )
    pixels = _positions(theta_b23.to(map_bchw.device), v, u, image_size)
    # From the image's edge at 0 to pixel centres at -1 and 1, where the map's outer cells lie.
    ends = [(2 * each - 1) / max(n - 1, 1) - 1 for each, n in zip(pixels, reversed(image_size), strict=True)]
    grid_bhw2 = torch.stack(ends, 3).to(map_bchw.dtype)
    return functional.grid_sample(map_bchw, grid_bhw2, mode="bilinear", padding_mode="border", align_corners=True)


def inside(theta_b23: Tensor, size: Size, out_size: Size, device: torch.device | str = "cpu") -> Tensor | None:
    """The pixels (bool `[B, h, w]`) of views of `out_size` that show the image of `size`: those with a label.

    None where all do. `theta_b23` is on the CPU, so that this does not wait for the device.
    """
    v, u = (_centres(n, torch.device("cpu")) for n in out_size)
    if _within(theta_b23, v[[0, -1]], u[[0, -1]], size).all():  # a view is convex
        return None
    if without_rotation(theta_b23):
        _, y_bh1 = _positions(theta_b23, v, u[:1], size)
        x_b1w, _ = _positions(theta_b23, v[:1], u, size)
        return ((y_bh1 >= 0) & (y_bh1 < size[0])).to(device) & ((x_b1w >= 0) & (x_b1w < size[1])).to(device)
    return _within(theta_b23.to(device), v.to(device), u.to(device), size)


def _within(theta_b23: Tensor, v: Tensor, u: Tensor, size: Size) -> Tensor:
    x_bhw, y_bhw = _positions(theta_b23, v, u, size)
    return (x_bhw >= 0) & (x_bhw < size[1]) & (y_bhw >= 0) & (y_bhw < size[0])


def _positions(theta_b23: Tensor, v: Tensor, u: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Columns and rows (float64 `[B, h, w]`, in pixels from the image's edge) that views show at rows v, columns u."""
    theta = theta_b23.to(torch.float64)

    def along(row: int, pixels: int) -> Tensor:
        across, down, shift = theta[:, row, 0, None, None], theta[:, row, 1, None, None], theta[:, row, 2, None, None]
        position_bhw: Tensor = (across * u + down * v[:, None] + shift + 1) * (pixels / 2)
        return position_bhw

    return along(0, size[1]), along(1, size[0])


def _centres(pixels: int, device: torch.device) -> Tensor:
    """Pixel centres along one side, as shares of it from -1 to 1, float64."""
    return (2 * torch.arange(pixels, device=device, dtype=torch.float64) + 1) / pixels - 1


def _warp(map_bchw: Tensor, theta_b23: Tensor, out_size: Size, mode: str, outside: str) -> Tensor:
    grid = functional.affine_grid(theta_b23.to(map_bchw), [len(map_bchw), 1, *out_size], align_corners=False)
    return functional.grid_sample(map_bchw, grid, mode=mode, padding_mode=outside, align_corners=False)


def warp_labels(label_bhw: Tensor, theta_b23: Tensor, out_size: Size) -> Tensor:
    """The views of labels of any integer type, nearest, in `out_size`; `IGNORE_INDEX` outside.

    Coordinates are computed in float64 and labels gathered by index, so the result is the same on every device.
    """
    if label_bhw.device.type == "cpu" and without_rotation(theta_b23):
        return nearest_labels(label_bhw, theta_b23, out_size, IGNORE_INDEX)
    _, height, width = label_bhw.shape
    v, u = (_centres(n, label_bhw.device) for n in out_size)
    places = _positions(theta_b23.to(label_bhw.device), v, u, (height, width))
    x_bhw, y_bhw = (position_bhw.floor().long() for position_bhw in places)
    shown_bhw = (x_bhw >= 0) & (x_bhw < width) & (y_bhw >= 0) & (y_bhw < height)
    index = (y_bhw.clamp(0, height - 1) * width + x_bhw.clamp(0, width - 1)).flatten(1)
    warped = label_bhw.flatten(1).gather(1, index).view_as(x_bhw)
    return warped.masked_fill(~shown_bhw, IGNORE_INDEX)


def flow_between(theta_a: Tensor, theta_b: Tensor, size: Size) -> Tensor:
    """Exact flow `[B, 2, h, w]` in pixels (x, y) between two views of the same images, both of `size` pixels.

    View a shows at `p` what view b shows at `p + flow(p)`.
    """
    height, width = size
    a, b = theta_a.double(), theta_b.double()
    linear = torch.linalg.solve(b[:, :, :2], a[:, :, :2])
    shift = torch.linalg.solve(b[:, :, :2], a[:, :, 2] - b[:, :, 2])
    v, u = (_centres(n, a.device) for n in size)
    here = torch.stack([u.expand(height, width), v[:, None].expand(height, width)])
    there = torch.einsum("bij,jhw->bihw", linear, here) + shift[:, :, None, None]
    pixels = torch.tensor([width / 2, height / 2], device=a.device, dtype=torch.float64)
    flow_b2hw: Tensor = (there - here) * pixels[:, None, None]
    return flow_b2hw.float()


def flow_of_view(flow_b2hw: Tensor, theta_b23: Tensor, out_size: Size) -> Tensor:
    """The flow between two frames in the same view of both: nearest, 0 outside the image."""
    _, _, height, width = flow_b2hw.shape
    moved = _warp(flow_b2hw, theta_b23, out_size, "nearest", "zeros")
    source_to_unit = torch.tensor([2 / width, 2 / height], device=moved.device)
    unit_to_view = torch.tensor([out_size[1] / 2, out_size[0] / 2], device=moved.device)
    inverse = torch.linalg.inv(theta_b23[:, :, :2].to(moved))
    to_view = unit_to_view[:, None] * inverse * source_to_unit
    return torch.einsum("bij,bjhw->bihw", to_view, moved)


def photometric(image_bchw: Tensor, seed: int, epoch: int, indices: Indices, strength: float) -> Tensor:
    """Jitter images in [0, 1]: brightness, contrast, saturation of RGB in this order; brightness alone of thermal.

    Factors are uniform in [1 - strength, 1 + strength]. Equal to `torchvision.transforms.v2.functional.adjust_*` with
    the factors of each image, for a whole batch at once.
    """
    if strength == 0:
        return image_bchw
    factors_b4 = torch.from_numpy(jitter_factors(seed, epoch, indices, strength)).to(image_bchw)
    brightness, contrast, saturation, brightness_of_thermal = factors_b4[..., None, None, None].unbind(1)
    rgb = (image_bchw[:, :3] * brightness).clamp(0, 1)
    rgb = _blend(rgb, _grey(rgb).mean((1, 2, 3), keepdim=True), contrast)
    rgb = _blend(rgb, _grey(rgb), saturation)
    thermal = (image_bchw[:, 3:] * brightness_of_thermal).clamp(0, 1)
    return torch.cat([rgb, thermal], dim=1)


def jitter_factors(seed: int, epoch: int, indices: Indices, strength: float) -> NDArray[np.float64]:
    """Factors of brightness, contrast, saturation and brightness of thermal, `[B, 4]`."""
    lots = [_uniform(seed, epoch, indices, lot) for lot in (BRIGHTNESS, CONTRAST, SATURATION, THERMAL)]
    factors: NDArray[np.float64] = 1 + strength * (2 * np.stack(lots, 1) - 1)
    return factors


def _grey(rgb_bchw: Tensor) -> Tensor:
    weights = torch.tensor(GREY, device=rgb_bchw.device, dtype=rgb_bchw.dtype)
    return (rgb_bchw * weights[:, None, None]).sum(1, keepdim=True)


def _blend(image: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other, image, factor).clamp(0, 1)


def _uniform(seed: int, epoch: int, indices: Indices, lot: int) -> NDArray[np.float64]:
    """One number in [0, 1) per index: a hash of (seed, epoch, index, lot) by rounds of splitmix64."""
    state = np.zeros(len(indices), np.uint64)
    for word in (seed, epoch, np.asarray(indices), lot):
        state = _splitmix64(state ^ np.asarray(word, np.uint64))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _splitmix64(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
