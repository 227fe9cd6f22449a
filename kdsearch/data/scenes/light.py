"""Turns a painted canvas of the built-in scenes into what an RGB camera and a thermal camera record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.scenes.canvas import Array, Canvas
from kdsearch.data.scenes.street import Rng, Street


@dataclass(frozen=True)
class Light:
    """Lots of a scene that both of its frames share."""

    ambient: Array
    headlights: float
    fog: float
    glare: tuple[float, float, float] | None
    sky: float
    rgb_noise: float
    thermal_gain: float
    thermal_offset: float
    thermal_noise: float
    columns: Array


def random_light(rng: Rng, street: Street, width: int) -> Light:
    time = street.weather.time
    brightness = {"day": rng.uniform(0.75, 1.15), "dusk": rng.uniform(0.3, 0.5), "night": rng.uniform(0.02, 0.09)}[time]
    tint = {"day": (1.0, 0.99, 0.95), "dusk": (1.1, 0.92, 0.85), "night": (0.75, 0.85, 1.2)}[time]
    glare_chance = 0.3 if time == "dusk" else 0.15
    glare = (float(rng.uniform(0, 1)), float(rng.uniform(0.1, 0.5)), float(rng.uniform(0.3, 0.8)))
    return Light(
        ambient=brightness * np.array(tint) * (1 + rng.normal(0, 0.04, 3)),
        headlights=float(rng.uniform(0.15, 0.7)) if time == "night" else 0.0,
        fog=float(rng.uniform(0.02, 0.09)) if rng.random() < 0.2 else 0.001,
        glare=glare if rng.random() < glare_chance else None,
        sky={"day": 1.0, "dusk": 1.3, "night": 1.0}[time],
        rgb_noise={"day": 0.02, "dusk": 0.035, "night": float(rng.uniform(0.03, 0.06))}[time],
        thermal_gain=float(rng.uniform(0.9, 1.5)),
        thermal_offset=float(rng.uniform(-0.1, 0.1)),
        thermal_noise=float(rng.uniform(0.012, 0.04)),
        columns=0.012 * rng.standard_normal(width),
    )


def develop(canvas: Canvas, street: Street, light: Light, rng: Rng) -> NDArray[np.uint8]:
    """The image `[H, W, 4]`: RGB with lamps, fog, glare, blur and noise, then thermal."""
    return np.dstack([_rgb(canvas, street, light, rng), _thermal(canvas, light, rng)])


def _rgb(canvas: Canvas, street: Street, light: Light, rng: Rng) -> NDArray[np.uint8]:
    camera = canvas.camera
    y, x = camera.grid()
    distance = canvas.depth_hw - camera.z
    world_x = camera.world_x(x, distance)
    lamps = np.zeros(distance.shape)
    for thing in street.things:
        if thing.lamp:
            lamps += 0.45 / (1 + ((world_x - thing.x) ** 2 + (canvas.depth_hw - thing.z) ** 2) / 6)
    beam = light.headlights * np.exp(-((world_x / 3.5) ** 2)) / (1 + (distance / 12) ** 2)
    falling = light.ambient + (lamps[..., None] * (1.0, 0.85, 0.6) if street.weather.time != "day" else 0)
    rgb = canvas.albedo_hw3 * (falling + beam[..., None]) + canvas.emission_hw3
    if street.weather.wet:
        rgb += _reflections(canvas, rgb)
    haze = light.ambient * 0.8 + 0.02
    rgb += (haze - rgb) * (1 - np.exp(-light.fog * np.minimum(distance, 400)))[..., None]
    if light.glare is not None:
        height, width = camera.size
        at_x, at_y, strength = light.glare
        far = ((x / width - at_x) ** 2 + (y / height - at_y) ** 2) / 0.04
        rgb += (strength / (1 + far))[..., None] * (1.0, 0.9, 0.75)
    bloom = _blur(_blur(np.maximum(canvas.emission_hw3, 0), 2), 2)
    rgb = _blur(rgb + 0.5 * bloom, 1)
    rgb = np.clip(rgb, 0, None) ** (1 / 1.6)
    rgb += light.rgb_noise * rng.standard_normal(rgb.shape)
    return (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)


def _reflections(canvas: Canvas, rgb: Array) -> Array:
    """Wet ground mirrors what stands above it, smeared downwards."""
    below_horizon = np.abs(canvas.camera.world_y(canvas.camera.grid()[0], canvas.depth_hw - canvas.camera.z)) < 0.02
    smear, mirrored = np.zeros(rgb.shape[1:]), np.zeros_like(rgb)
    for row in range(rgb.shape[0]):
        smear = 0.9 * smear + np.where(below_horizon[row][:, None], 0, 0.1 * rgb[row] + 0.2 * canvas.emission_hw3[row])
        mirrored[row] = smear
    return np.where(below_horizon[..., None], 0.45 * mirrored, 0)


def _thermal(canvas: Canvas, light: Light, rng: Rng) -> NDArray[np.uint8]:
    """Temperatures seen through a soft lens, with automatic gain, column pattern and noise."""
    distance = np.minimum(canvas.depth_hw - canvas.camera.z, 400)
    air = 0.3
    heat = air + (canvas.heat_hw - air) * np.exp(-(0.002 + 0.25 * light.fog) * distance)
    heat = _blur(_blur(heat[..., None], 1), 1)[..., 0]
    heat = (heat - 0.4) * light.thermal_gain + 0.45 + light.thermal_offset
    heat += light.columns + light.thermal_noise * rng.standard_normal(heat.shape)
    return (np.clip(heat, 0, 1) * 255 + 0.5).astype(np.uint8)


def _blur(image_hwc: Array, reach: int) -> Array:
    """Separable [1, 2, 1] / 4 blur whose outer taps lie `reach` pixels away."""
    for axis in (0, 1):
        pad = [(0, 0)] * 3
        pad[axis] = (reach, reach)
        padded = np.pad(image_hwc, pad, mode="edge")
        size = image_hwc.shape[axis]
        before, after = (np.take(padded, range(start, start + size), axis) for start in (0, 2 * reach))
        image_hwc = 0.5 * image_hwc + 0.25 * (before + after)
    return image_hwc
