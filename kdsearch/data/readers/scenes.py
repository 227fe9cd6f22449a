"""The built-in data set: drawn RGB-thermal street scenes with a next frame and its exact optical flow.

By day people and hot asphalt are close in the thermal channel; at night, in fog or glare RGB shows little and thermal a
lot. Statues and posters look like people but are cold; parked cars are cold, running ones are not. Results on this set
show that the software works and which of two settings is better on it, and nothing about real streets.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from kdsearch.data.info import RGB_MEAN, RGB_STD, THERMAL_MEAN, THERMAL_STD, DatasetInfo
from kdsearch.data.reader import SPLITS, Sample, check_split
from kdsearch.data.scenes import layout as scenes_layout
from kdsearch.data.scenes import light as scenes_light
from kdsearch.data.scenes import street as scenes_street
from kdsearch.data.scenes.canvas import Canvas

INFO = DatasetInfo(
    name="scenes",
    classes=scenes_street.CLASSES,
    palette=((70, 130, 180), (128, 64, 128), (244, 35, 232), (70, 70, 70), (107, 142, 35), (0, 0, 142), (220, 20, 60),
             (119, 11, 32), (220, 220, 0)),
    channels=4,
    mean=(*RGB_MEAN, THERMAL_MEAN),
    std=(*RGB_STD, THERMAL_STD),
    video=True,
)  # fmt: skip


DRAWING = 1
"""Version of the drawings; raised whenever `data/scenes/` draws other pixels."""


@dataclass
class Scene:
    """A drawn sample, and the canvases of its two frames (depth and labels of both, for checks)."""

    sample: Sample
    first: Canvas
    second: Canvas
    weather: scenes_street.Weather


def draw_scene(seed: int, split: str, index: int, size: tuple[int, int]) -> Scene:
    """Scene `index` of a split, `size` (height, width) pixels: a pure function of its arguments."""
    rng = np.random.default_rng([seed, Scenes.splits.index(split), index])
    street = scenes_layout.random_street(rng)
    camera = scenes_layout.random_camera(rng, size)
    later = scenes_layout.random_step(rng, camera)
    light = scenes_light.random_light(rng, street, size[1])
    first, second = street.paint(camera, step=0), street.paint(later, step=1)
    sample = Sample(
        image_hwc=scenes_light.develop(first, street, light, rng),
        label_hw=first.label_hw,
        next_image_hwc=scenes_light.develop(second, street, light, rng),
        flow_hw2=first.flow_to(later),
    )
    return Scene(sample, first, second, street.weather)


class Scenes:
    """Reader of the built-in scenes: `train`, `val` and `test` samples of `height` x `width` pixels."""

    info = INFO
    splits = (*SPLITS, "test")

    def __init__(
        self,
        train: PositiveInt = 160,
        val: PositiveInt = 48,
        seed: NonNegativeInt = 0,
        height: PositiveInt = 96,
        width: PositiveInt = 128,
        test: PositiveInt = 48,
    ) -> None:
        self.counts = {"train": train, "val": val, "test": test}
        self.seed, self.size = seed, (height, width)

    def keys(self, split: str) -> list[str]:
        check_split(split, self.splits)
        return [f"{split}-{index:05d}" for index in range(self.counts[split])]

    def read(self, split: str, key: str) -> Sample:
        check_split(split, self.splits)
        return draw_scene(self.seed, split, int(key.rpartition("-")[2]), self.size).sample

    def files(self, split: str, key: str) -> list[Path]:
        check_split(split, self.splits)
        return []

    def rules(self) -> dict[str, Any]:
        return {"drawing": DRAWING, "seed": self.seed, "size": self.size, **asdict(INFO)}
