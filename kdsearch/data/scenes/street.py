"""A random street of the built-in scenes: what stands where, how it moves, and how it is painted on a canvas."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kdsearch.data.scenes import shapes as shapes
from kdsearch.data.scenes.canvas import FAR, Array, Camera, Canvas, noise
from kdsearch.data.scenes.shapes import Mask, Shape

CLASSES = ("sky", "road", "sidewalk", "building", "vegetation", "car", "person", "bicycle", "pole")
SKY, ROAD, SIDEWALK, BUILDING, VEGETATION, CAR, PERSON, BICYCLE, POLE = range(9)

Rng = np.random.Generator


@dataclass(frozen=True)
class Weather:
    """Light and heat of a scene. `sun` in [0, 1] is how much the sun has warmed surfaces."""

    time: str
    sun: float
    wet: bool

    def heat(self, night: float, day: float) -> float:
        """Temperature of a material that is at `night` without sun and at `day` in full sun."""
        return night + self.sun * (day - night)


@dataclass(frozen=True)
class Thing:
    """A figure that stands at `(x, z)` on the ground (or `y` above it) and moves by `motion` until the next frame."""

    label: int
    shape: Shape
    x: float
    z: float
    half_width: float
    height: float
    motion: tuple[float, float] = (0.0, 0.0)
    y: float = 0.0
    lamp: bool = False

    def paint(self, canvas: Canvas, step: float) -> None:
        """Draw the figure as it stands `step` frames later."""
        camera = canvas.camera
        x, z = self.x + step * self.motion[0], self.z + step * self.motion[1]
        distance = z - camera.z
        if distance < 1.2:
            return
        scale = camera.focal / distance
        centre = camera.vanish_x + scale * (x - camera.x)
        base = camera.horizon_y + scale * (camera.height - self.y)
        top, bottom = max(0, int(base - scale * self.height) - 1), min(camera.size[0], int(base) + 2)
        left = max(0, int(centre - scale * self.half_width) - 1)
        right = min(camera.size[1], int(centre + scale * self.half_width) + 2)
        if top >= bottom or left >= right:
            return
        rows, columns = np.arange(top, bottom, dtype=float)[:, None], np.arange(left, right, dtype=float)[None]
        u = camera.world_x(columns, distance) - x
        v = camera.world_y(rows, distance) - self.y
        figure = self.shape(u, v)
        mask = figure.mask & (v >= 0)
        canvas.paint(mask, z, self.label, figure.albedo, figure.heat, figure.emission, self.motion, corner=(top, left))


@dataclass
class Facades:
    """One side of the street: a wall along the road at X = `x`, cut at the Z values `edges` into segments."""

    x: float
    edges: Array
    heights: Array
    labels: np.ndarray  # uint8, a segment; SKY marks a gap
    colours: Array
    lit: Mask
    posters: list[tuple[float, Shape]] = field(default_factory=list)


@dataclass
class Street:
    """Everything in a scene."""

    weather: Weather
    road: tuple[float, float]
    pavement: tuple[float, float]
    lane_marks: list[float]
    crossing_z: float
    side_road: tuple[float, float]
    verge: int
    texture: int
    facades: list[Facades]
    things: list[Thing]
    manholes: list[tuple[float, float]]
    asphalt: float

    def paint(self, camera: Camera, step: float) -> Canvas:
        """The scene as `camera` sees it `step` frames later."""
        canvas = Canvas(camera)
        self._paint_sky(canvas)
        self._paint_ground(canvas, step)
        for facades in self.facades:
            self._paint_facades(canvas, facades)
        for thing in self.things:
            thing.paint(canvas, step)
        return canvas

    def _paint_sky(self, canvas: Canvas) -> None:
        camera = canvas.camera
        y, x = camera.grid()
        up = (camera.horizon_y - y) / camera.focal
        clouds = noise(up + 0 * x, (x - camera.vanish_x) / camera.focal + 0 * y, 70.0, self.texture)
        cover = np.clip(0.5 + 1.2 * clouds, 0, 1)[..., None]
        blue = np.array([0.42, 0.58, 0.85]) + np.clip(0.4 - up, 0, 1)[..., None] * np.array([0.5, 0.4, 0.15])
        albedo = blue * (1 - cover) + 0.85 * cover
        heat = self.weather.heat(0.06, 0.12) + 0.08 * cover[..., 0] + 0.12 * np.clip(0.3 - up, 0, 1)
        canvas.paint(np.ones(camera.size, bool), FAR, SKY, albedo, heat)

    def _paint_ground(self, canvas: Canvas, step: float) -> None:
        camera = canvas.camera
        rows, x = camera.grid()
        top = max(0, int(np.floor(camera.horizon_y)) + 1)
        y = rows[top:]
        distance = camera.focal * camera.height / (y - camera.horizon_y)
        z = distance + camera.z + 0 * x
        x = camera.world_x(x, distance)

        on_side_road = (z > self.side_road[0]) & (z < self.side_road[1])
        on_road = ((x > self.road[0]) & (x < self.road[1])) | on_side_road
        on_pavement = (x > self.pavement[0]) & (x < self.pavement[1]) & ~on_road
        label = np.full(z.shape, self.verge, np.uint8)
        label[on_pavement], label[on_road] = SIDEWALK, ROAD

        grain = noise(z, x, 5.0, self.texture)
        coarse = noise(z, x, 0.9, self.texture + 5)
        shade = (1 + 0.16 * grain + 0.22 * coarse)[..., None]
        slabs = ((z % 1.2 < 0.08) | (x % 1.2 < 0.08))[..., None]
        road = np.full(3, self.asphalt) * shade
        pavement = np.array([0.44, 0.42, 0.40]) * shade * np.where(slabs, 0.75, 1.0)
        grass = np.array([0.24, 0.33, 0.14]) * (1 + 0.5 * grain + 0.2 * coarse)[..., None]
        open_ground = grass if self.verge == VEGETATION else pavement
        albedo = np.where(on_road[..., None], road, np.where(on_pavement[..., None], pavement, open_ground))
        marks = np.zeros(z.shape, bool)
        for lane in self.lane_marks:
            marks |= (np.abs(x - lane) < 0.09) & (z % 5 < 2.6) & ~on_side_road
        stripes = (np.abs(z - self.crossing_z) < 1.3) & (x % 1.1 < 0.55) & (x > self.road[0]) & (x < self.road[1])
        albedo[(marks | stripes) & (coarse < 0.35)] = 0.72
        curb = on_pavement & (np.minimum(np.abs(x - self.road[0]), np.abs(x - self.road[1])) < 0.18)
        albedo[curb] = 0.58

        weather = self.weather
        heat = np.where(on_road, weather.heat(0.33, 0.66), weather.heat(0.30, 0.57))
        if self.verge == VEGETATION:
            heat = np.where(label == VEGETATION, weather.heat(0.22, 0.40), heat)
        heat = heat + 0.04 * coarse + 0.015 * grain
        for hole_x, hole_z in self.manholes:
            near = np.hypot(x - hole_x, z - hole_z)
            albedo[near < 0.4] = 0.12
            heat = heat + (0.4 if weather.sun < 0.3 else 0.05) * np.exp(-((near / 0.45) ** 4))
        for thing in self.things:
            if thing.label in (CAR, PERSON, BICYCLE) and thing.z < 30:
                away = (x - thing.x - step * thing.motion[0]) ** 2 / (0.9 * thing.half_width**2 + 0.05)
                shadow = np.exp(
                    -away - (z - thing.z - step * thing.motion[1]) ** 2 / (0.9 if thing.label == CAR else 0.1)
                )
                albedo *= (1 - 0.55 * shadow)[..., None]
                heat = heat - 0.12 * weather.sun * shadow
        canvas.paint(np.ones(z.shape, bool), z, label, albedo, heat, corner=(top, 0))

    def _paint_facades(self, canvas: Canvas, side: Facades) -> None:
        camera = canvas.camera
        y, x = camera.grid()
        slope = (x - camera.vanish_x) / (side.x - camera.x)
        columns = np.flatnonzero(slope[0] * 150 > camera.focal)
        if columns.size == 0:
            return
        left, right = int(columns[0]), int(columns[-1]) + 1
        distance = camera.focal / slope[:, left:right]
        z = distance + camera.z
        segment = np.clip(np.searchsorted(side.edges, z[0]) - 1, 0, len(side.labels) - 1)
        up = camera.world_y(y, distance)
        along = z + 0 * y
        label = side.labels[segment][None] + np.zeros(up.shape, np.uint8)
        ragged = np.where(label == VEGETATION, 1 + 0.25 * noise(up, along, 7.0, self.texture + 9), 1.0)
        mask = (up >= 0) & (up < side.heights[segment] * ragged) & (label != SKY) & (z > side.edges[0])
        grain = 1 + 0.14 * noise(up, along, 5.0, self.texture + 3)
        leafy = 1 + 0.5 * noise(up, along, 9.0, self.texture + 4)
        albedo = side.colours[segment][None] * np.where(label == VEGETATION, leafy, grain)[..., None]
        weather = self.weather
        heat = np.where(label == BUILDING, weather.heat(0.36, 0.54), weather.heat(0.27, 0.37)) + 0.08 * (grain - 1)
        emission = np.zeros((*up.shape, 3))
        panes, glow = shapes.windows(along, up, side.lit)
        panes &= label == BUILDING
        albedo[panes] = (0.16, 0.20, 0.25)
        heat = heat - 0.06 * panes + 0.12 * (panes & glow)
        emission[panes & glow] = (0.75, 0.6, 0.35)
        for poster_z, shape in side.posters:
            figure = shape(along - poster_z, up - 0.4)
            board = (np.abs(along - poster_z) < 0.6) & (up > 0.3) & (up < 2.4) & (label == BUILDING)
            albedo[board] = 0.62
            inside = board & figure.mask
            albedo[inside] = figure.albedo[inside]
            emission[board] = 0.0
        canvas.paint(mask, along, label, albedo, heat, emission, corner=(0, left))
