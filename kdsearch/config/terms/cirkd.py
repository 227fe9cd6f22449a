"""Settings of CIRKD, within the mini-batch and with a memory."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from kdsearch.config.terms.tap import TapTermConfig


class CIRKDConfig(TapTermConfig):
    """Settings of the term `cirkd`."""

    tau: PositiveFloat = Field(0.1, description="softmax temperature of the cosines; published 0.1; range 0.03 to 0.5")
    pool: Literal[1, 2, 4] = Field(
        1,
        description="average windows of this side first, over their valid pixels: another loss, pool^4 times "
        "cheaper; published 1, and 4 for maps of 256 x 256 and more",
    )
    mask_ignored: bool = Field(
        True, description="leave ignored pixels out; false: count all pixels, as the CIRKD code does"
    )


_WEIGHT_OF_FIELD = {"queue": "w_pixel", "pixels_per_class": "w_pixel", "region_queue": "w_region"}


class CIRKDMemoryConfig(TapTermConfig):
    """Settings of the term `cirkd_memory`."""

    tau: PositiveFloat = Field(0.1, description="softmax temperature of the cosines; published 0.1; range 0.03 to 0.5")
    w_pixel: NonNegativeFloat = Field(
        0.1, description="weight of the pixel queue; published 0.1 (VOC 0.01); range 0.003 to 1; 0: no such queue"
    )
    w_region: NonNegativeFloat = Field(
        0.1, description="weight of the region queue; published 0.1 (VOC 0.01); range 0.003 to 1; 0: no such queue"
    )
    queue: PositiveInt = Field(
        20000, description="pixels per class in the queue; published 20000 (SegFormer 2000); range 2000 to 20000"
    )
    region_queue: PositiveInt = Field(2000, description="regions per class in the queue; published 2000")
    pixels_per_class: PositiveInt = Field(16, description="pixels stored per class, image and step; published 16")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.w_pixel == 0 and self.w_region == 0:
            raise ValueError("w_pixel and w_region are both 0; leave the term out instead")
        for field, weight in _WEIGHT_OF_FIELD.items():
            if getattr(self, weight) == 0:
                self.refuse_changed([field], f"with {weight} 0; leave it out, or raise {weight}")
        return self
