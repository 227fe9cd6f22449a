"""Properties of a data set that networks, terms and reports need."""

from __future__ import annotations

from dataclasses import dataclass

IGNORE_INDEX = 255
"""Label value of pixels without a class, in every store and every loss."""

RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
THERMAL_MEAN, THERMAL_STD = 0.449, 0.226


@dataclass(frozen=True)
class DatasetInfo:
    """Name, classes and input channels of a data set.

    `channels` is 3 (RGB) or 4 (RGB and thermal). `mean` and `std`, one value per channel, normalise images scaled to
    [0, 1]. `palette` has one RGB colour per class. `video` is set if samples have a next frame and the flow to it.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    video: bool = False

    @property
    def num_classes(self) -> int:
        return len(self.classes)
