"""Shapes of the objects in the built-in scenes: flat figures that face the camera.

A shape maps figure coordinates, `u` to the right and `v` up from the ground, both in metres, to a `Figure`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.scenes.canvas import Array, noise

Mask = NDArray[np.bool_]
Colour = tuple[float, float, float] | Array


@dataclass
class Figure:
    """Which points of its window a shape covers, their colour `[..., 3]`, temperature and light."""

    mask: Mask
    albedo: Array
    heat: Array
    emission: Array

    @classmethod
    def blank(cls, shape: tuple[int, ...]) -> Figure:
        return cls(np.zeros(shape, bool), np.zeros((*shape, 3)), np.zeros(shape), np.zeros((*shape, 3)))

    def add(self, mask: Mask, colour: Colour, heat: Array | float, emission: Colour = (0.0, 0.0, 0.0)) -> None:
        """Cover `mask` over what is there, with one value or one a pixel."""
        self.mask |= mask
        np.copyto(self.albedo, colour, where=mask[..., None])
        np.copyto(self.heat, heat, where=mask)
        np.copyto(self.emission, emission, where=mask[..., None])


Shape = Callable[[Array, Array], Figure]


def capsule(u: Array, v: Array, start: tuple[float, float], end: tuple[float, float], radius: float) -> Mask:
    """Points within `radius` of the segment from `start` to `end`."""
    along = (end[0] - start[0], end[1] - start[1])
    length2 = along[0] ** 2 + along[1] ** 2 + 1e-9
    t = np.clip(((u - start[0]) * along[0] + (v - start[1]) * along[1]) / length2, 0, 1)
    inside: Mask = (u - start[0] - t * along[0]) ** 2 + (v - start[1] - t * along[1]) ** 2 < radius**2
    return inside


def person(
    height: float,
    stride: float,
    skin: Colour,
    top: Colour,
    trousers: Colour,
    heats: tuple[float, float, float],
    seated: bool = False,
) -> Shape:
    """A walking, standing or seated (riding) figure; `heats` of head, torso and legs."""
    head_heat, torso_heat, leg_heat = heats

    def draw(u: Array, v: Array) -> Figure:
        u, v = u / height, v / height
        figure = Figure.blank(np.broadcast_shapes(u.shape, v.shape))
        knee = stride * 0.5
        for side in (-1, 1):
            foot = (side * stride, 0.12 if seated else 0.03)
            figure.add(capsule(u, v, (side * 0.04, 0.48), (side * knee, 0.26), 0.055), trousers, leg_heat)
            figure.add(capsule(u, v, (side * knee, 0.26), foot, 0.042), trousers, leg_heat)
        for side in (-1, 1):
            hand = (0.24 if seated else side * (0.13 + 0.5 * stride), 0.58 if seated else 0.46)
            figure.add(capsule(u, v, (side * 0.09, 0.78), hand, 0.036), top, torso_heat)
        figure.add(capsule(u, v, (0.0, 0.52), (0.03 * seated, 0.75), 0.105), top, torso_heat)
        figure.add(capsule(u, v, (0.03 * seated, 0.9), (0.03 * seated, 0.93), 0.062), skin, head_heat)
        return figure

    return draw


def car_rear(
    paint: Colour, body_heat: float, running_heat: float | None, lamp: Colour | None, oncoming: bool, tall: float
) -> Shape:
    """A car seen along the road, 1.8 m wide and `tall` metres high. `running_heat` of tyres, engine and exhaust."""

    def draw(u: Array, v: Array) -> Figure:
        figure = Figure.blank(np.broadcast_shapes(u.shape, v.shape))
        wide = np.abs(u)
        warm = body_heat if running_heat is None else running_heat
        figure.add((wide > 0.55) & (wide < 0.86) & (v < 0.45), (0.04, 0.04, 0.04), warm)
        body = (wide < 0.9) & (v > 0.2) & (v < 0.58 * tall)
        engine = body_heat + (warm - body_heat) * (0.8 * np.exp(-((v / tall - 0.3) ** 2) / 0.02) if oncoming else 0.25)
        figure.add(body, paint, engine)
        rise = (v - 0.58 * tall) / (0.42 * tall)
        figure.add((rise >= 0) & (rise < 1) & (wide < 0.84 - 0.2 * rise), paint, body_heat)
        glass = (rise > 0.08) & (rise < 0.8) & (wide < 0.74 - 0.2 * rise)
        figure.add(glass, (0.10, 0.12, 0.15), 0.75 * body_heat)
        figure.add((wide < 0.3) & (np.abs(v - 0.5) < 0.07), (0.8, 0.8, 0.75), body_heat)
        lamps = (wide > 0.58) & (wide < 0.84) & (np.abs(v - 0.46 * tall) < 0.1)
        glow = (0.0, 0.0, 0.0) if lamp is None else lamp
        figure.add(lamps, (0.85, 0.85, 0.8) if oncoming else (0.5, 0.05, 0.05), body_heat + 0.1 * (warm > 0.5), glow)
        if running_heat is not None and not oncoming:
            figure.add(capsule(u, v, (0.5, 0.24), (0.6, 0.24), 0.08), (0.1, 0.1, 0.1), 0.98)
        return figure

    return draw


def car_side(paint: Colour, body_heat: float, running_heat: float | None, lamp: Colour | None, facing: int) -> Shape:
    """A car seen from its side, 4.2 m long, its bonnet towards `facing` (-1 left, 1 right)."""

    def draw(u: Array, v: Array) -> Figure:
        u = u * facing
        figure = Figure.blank(np.broadcast_shapes(u.shape, v.shape))
        warm = body_heat if running_heat is None else running_heat
        body = (np.abs(u) < 2.1) & (v > 0.25) & (v < 0.85 - 0.04 * (u > 1.0))
        bonnet = body_heat + (warm - body_heat) * 0.85 / (1 + np.exp(-(u - 1.0) / 0.18))
        figure.add(body, paint, bonnet)
        rise = (v - 0.85) / 0.6
        slope = (u > -1.75 + 0.55 * rise) & (u < 1.15 - 0.8 * rise)
        figure.add((rise >= 0) & (rise < 1) & slope, paint, body_heat)
        glass = (rise > 0.1) & (rise < 0.85) & (u > -1.5 + 0.55 * rise) & (u < 0.95 - 0.8 * rise)
        figure.add(glass & (np.abs(u + 0.25) > 0.06), (0.10, 0.12, 0.15), 0.75 * body_heat)
        for hub in (-1.3, 1.3):
            figure.add(capsule(u, v, (hub, 0.34), (hub, 0.34), 0.34), (0.04, 0.04, 0.04), warm)
            figure.add(capsule(u, v, (hub, 0.34), (hub, 0.34), 0.18), (0.45, 0.45, 0.47), 0.9 * warm)
        for end, colour in ((2.0, (1.0, 0.95, 0.8)), (-2.0, (0.9, 0.1, 0.05))):
            glow = (0.0, 0.0, 0.0) if lamp is None else colour
            figure.add(capsule(u, v, (end, 0.66), (end, 0.66), 0.1), colour, body_heat, glow)
        return figure

    return draw


def bicycle(frame: Colour, heat: float, facing: int, frontal: bool) -> Shape:
    """A bicycle from its side (wheels 1.05 m apart) or, `frontal`, along the road."""

    def draw(u: Array, v: Array) -> Figure:
        u = u * facing
        figure = Figure.blank(np.broadcast_shapes(u.shape, v.shape))
        tyre = (0.06, 0.06, 0.06)
        if frontal:
            figure.add(capsule(u, v, (0.0, 0.08), (0.0, 0.95), 0.08), tyre, heat)
            figure.add(capsule(u, v, (-0.3, 1.0), (0.3, 1.0), 0.06), frame, heat)
            return figure
        for hub in (-0.54, 0.54):
            figure.add(capsule(u, v, (hub, 0.36), (hub, 0.36), 0.38), (0.28, 0.28, 0.28), heat + 0.02)
            figure.add(
                capsule(u, v, (hub, 0.36), (hub, 0.36), 0.38) & ~capsule(u, v, (hub, 0.36), (hub, 0.36), 0.26),
                tyre,
                heat + 0.05,
            )
        for start, end in (((-0.54, 0.36), (-0.2, 0.85)), ((-0.2, 0.85), (0.4, 0.8)), ((0.4, 0.8), (0.0, 0.34)),
                           ((0.0, 0.34), (-0.2, 0.85)), ((0.4, 0.95), (0.54, 0.36)), ((0.3, 1.02), (0.48, 1.0)),
                           ((-0.3, 0.95), (-0.1, 0.95)), ((-0.54, 0.36), (0.0, 0.34))):  # fmt: skip
            figure.add(capsule(u, v, start, end, 0.055), frame, heat)
        return figure

    return draw


def post(height: float, radius: float, colour: Colour, heat: float, top: str, sign: Colour, lit: bool) -> Shape:
    """A post that carries nothing, a round `sign`, a `board` or a `lamp`."""

    def draw(u: Array, v: Array) -> Figure:
        figure = Figure.blank(np.broadcast_shapes(u.shape, v.shape))
        figure.add(capsule(u, v, (0.0, 0.0), (0.0, height - radius), radius), colour, heat)
        if top == "sign":
            figure.add(capsule(u, v, (0.0, height - 0.4), (0.0, height - 0.4), 0.4), (0.75, 0.08, 0.08), heat)
            figure.add(capsule(u, v, (0.0, height - 0.4), (0.0, height - 0.4), 0.27), sign, 0.95 * heat)
        elif top == "board":
            figure.add((np.abs(u) < 0.55) & (v > height - 0.7) & (v < height), sign, 0.95 * heat)
        elif top == "lamp":
            figure.add(capsule(u, v, (0.0, height - 0.1), (0.9, height - 0.05), radius), colour, heat)
            glow = (1.0, 0.85, 0.55) if lit else (0.0, 0.0, 0.0)
            figure.add(
                capsule(u, v, (0.75, height - 0.15), (1.05, height - 0.15), 0.14),
                (0.7, 0.7, 0.65),
                heat + 0.3 * lit,
                glow,
            )
        return figure

    return draw


def tree(height: float, crown: float, leaf: Array, heat: float, offset: int, bush: bool) -> Shape:
    """A tree with a ragged crown of radius `crown` metres, or a bush."""

    def draw(u: Array, v: Array) -> Figure:
        figure = Figure.blank(np.broadcast_shapes(u.shape, v.shape))
        grain = noise(v + 0 * u, u + 0 * v, 14.0, offset)
        centre = 0.0 if bush else height - crown
        if not bush:
            figure.add(capsule(u, v, (0.0, 0.0), (0.0, centre), 0.16), (0.22, 0.16, 0.11), heat + 0.03)
        ragged = np.hypot(u, (v - centre) * (1.2 if bush else 0.95)) < crown * (0.85 + 0.35 * grain)
        shade = (0.75 + 0.5 * grain + 0.25 * (v - centre) / crown)[..., None]
        mask = ragged & (v >= 0)
        figure.add(mask, leaf * shade, heat + 0.05 * grain)
        return figure

    return draw


def box(width: float, height: float, wall: Array, glass: Colour, heat: float, lit: Mask, offset: int) -> Shape:
    """The front of a building: a wall with a grid of windows, some `lit` (a table `[8, 8]` by floor and column)."""

    def draw(u: Array, v: Array) -> Figure:
        figure = Figure.blank(np.broadcast_shapes(u.shape, v.shape))
        mask = (np.abs(u) < 0.5 * width) & (v >= 0) & (v < height)
        grain = 1 + 0.15 * noise(v + 0 * u, u + 0 * v, 6.0, offset)
        figure.add(mask, wall * grain[..., None], heat + 0.03 * (grain - 1))
        panes, glow = windows(u + 40.0, v, lit)
        figure.add(mask & panes, glass, 0.85 * heat)
        figure.add(mask & panes & glow, (0.6, 0.5, 0.3), heat + 0.12, (0.75, 0.6, 0.35))
        return figure

    return draw


def windows(along: Array, up: Array, lit: Mask) -> tuple[Mask, Mask]:
    """Window panes of a wall over its coordinates in metres, and which of them are lit."""
    column, floor = along / 2.2, up / 3.0
    panes = (np.abs(column % 1 - 0.5) < 0.27) & (np.abs(floor % 1 - 0.55) < 0.25)
    return panes, lit[floor.astype(np.int64) & 7, column.astype(np.int64) & 7]
