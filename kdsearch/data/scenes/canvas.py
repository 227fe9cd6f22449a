"""Pinhole camera and depth-buffered canvas of the built-in scenes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FAR = 1e6
"""Depth of the sky in metres: its motion under a step of the camera stays below 1e-4 pixels."""


@dataclass(frozen=True)
class Camera:
    """Where the camera stands and looks; lengths in metres, image positions in pixels.

    World axes: X right, Y up from the ground, Z along the road. Pixel centres have integer coordinates.
    """

    size: tuple[int, int]
    focal: float
    horizon_y: float
    vanish_x: float
    height: float = 1.5
    x: float = 0.0
    z: float = 0.0

    def moved(self, x: float, z: float, pan_x: float, pan_y: float) -> Camera:
        """The camera after a step `x` right and `z` ahead and a small turn that shifts the image by `pan` pixels."""
        return replace(
            self, x=self.x + x, z=self.z + z, vanish_x=self.vanish_x + pan_x, horizon_y=self.horizon_y + pan_y
        )

    def grid(self) -> tuple[Array, Array]:
        """Pixel coordinates, `y` as `[H, 1]` and `x` as `[1, W]`."""
        height, width = self.size
        return np.arange(height, dtype=np.float64)[:, None], np.arange(width, dtype=np.float64)[None]

    def world_x(self, x: Array, depth: Array | float) -> Array:
        """World X of column `x` at a distance `depth` from the camera."""
        return (x - self.vanish_x) / self.focal * depth + self.x

    def world_y(self, y: Array, depth: Array | float) -> Array:
        """World Y of row `y` at a distance `depth` from the camera."""
        return self.height - (y - self.horizon_y) / self.focal * depth

    def project(self, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
        """Image position `(x, y)` of world points; those nearer than 0.3 m are treated as 0.3 m away."""
        depth = np.maximum(z - self.z, 0.3)
        scale = self.focal / depth
        return self.vanish_x + scale * (x - self.x), self.horizon_y + scale * (self.height - y)


class Canvas:
    """What a camera sees, a surface at a time; the nearest surface wins.

    `depth_hw` is world Z, `albedo_hw3` the colour under white light, `emission_hw3` light given off, `heat_hw` the
    temperature in [0, 1], `motion_hw2` the metres (X, Z) by which the surface moves until the next frame.
    """

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        height, width = camera.size
        self.depth_hw = np.full((height, width), np.inf)
        self.label_hw = np.zeros((height, width), np.uint8)
        self.albedo_hw3 = np.zeros((height, width, 3))
        self.emission_hw3 = np.zeros((height, width, 3))
        self.heat_hw = np.zeros((height, width))
        self.motion_hw2 = np.zeros((height, width, 2))

    def paint(
        self,
        mask: NDArray[np.bool_],
        depth: Array | float,
        label: NDArray[np.uint8] | int,
        albedo: Array,
        heat: Array | float,
        emission: Array | float = 0.0,
        motion: tuple[float, float] = (0.0, 0.0),
        corner: tuple[int, int] = (0, 0),
    ) -> None:
        """Draw a surface into the window whose top left pixel is `corner`, where `mask` holds and nothing is nearer."""
        window = np.s_[corner[0] : corner[0] + mask.shape[0], corner[1] : corner[1] + mask.shape[1]]
        mask = mask & (depth < self.depth_hw[window])
        if not mask.any():
            return
        for target, value in ((self.depth_hw, depth), (self.label_hw, label), (self.heat_hw, heat)):
            np.copyto(target[window], value, where=mask, casting="unsafe")
        np.copyto(self.albedo_hw3[window], albedo, where=mask[..., None])
        np.copyto(self.emission_hw3[window], emission, where=mask[..., None])
        np.copyto(self.motion_hw2[window], motion, where=mask[..., None])

    def flow_to(self, later: Camera) -> NDArray[np.float32]:
        """Exact flow `[H, W, 2]` in pixels (x, y): what is seen at `p` here is at `p + flow(p)` for `later`."""
        y, x = self.camera.grid()
        distance = self.depth_hw - self.camera.z
        to_x, to_y = later.project(
            self.camera.world_x(x, distance) + self.motion_hw2[..., 0],
            self.camera.world_y(y, distance),
            self.depth_hw + self.motion_hw2[..., 1],
        )
        return np.stack([to_x - x, to_y - y], axis=-1).astype(np.float32)


@cache
def _noise_tile() -> Array:
    """256 x 256 periodic fractal noise in [-1, 1]."""
    rng = np.random.default_rng(7)
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None]) + 1 / 256
    spectrum = np.fft.rfft2(rng.standard_normal((256, 256))) / frequency**0.9
    tile: Array = np.fft.irfft2(spectrum)
    return np.clip(tile / (2.5 * np.std(tile)), -1, 1)


def noise(a: Array, b: Array, per_unit: float, offset: int) -> Array:
    """Smooth noise in [-1, 1] over surface coordinates `a`, `b`, with `per_unit` cells a unit."""
    rows = (a * per_unit).astype(np.int64) + offset
    columns = (b * per_unit).astype(np.int64) + 31 * offset
    values: Array = _noise_tile()[rows & 255, columns & 255]
    return values
