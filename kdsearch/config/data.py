"""Settings of the data set: the `data` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from kdsearch.config.paths import FilePath
from kdsearch.config.strict import Listed, Strict

Size = Listed[tuple[PositiveInt, PositiveInt]]
Scalar = bool | int | float | str


class Augment(Strict):
    """Random views of the training images."""

    scale: Listed[tuple[PositiveFloat, PositiveFloat]] = Field((0.5, 2.0), description="range of the random zoom")
    flip: Annotated[float, Field(ge=0, le=1)] = Field(0.5, description="probability of a horizontal flip")
    jitter: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5,
        description="strength of brightness, contrast and saturation jitter on RGB; brightness only on thermal",
    )
    motion: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.08,
        description="with frames 'views': largest offset between two views of an image, as a share of the view; also "
        "the largest difference of zoom, and of rotation in radians",
    )

    @field_validator("scale")
    @classmethod
    def _from_small_to_large(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError(f"should go from the smaller to the larger factor: [{scale[1]:g}, {scale[0]:g}]")
        return scale


class DataConfig(Strict):
    """The data set, and the size at which it is stored, trained and evaluated."""

    name: str = Field(description="reader: mfnet, scenes, ...")
    path: FilePath | None = Field(None, description="folder of the data set; built-in sets have none")
    size: Size = Field(description="height and width in pixels of stored images; evaluation size")
    crop: Size | None = Field(None, description="height and width of the training view; default: size")
    options: dict[str, Scalar] = Field(default_factory=dict, description="keyword arguments of the reader")
    augment: Augment = Augment()
    frames: Literal["auto", "video", "views"] = Field(
        "auto",
        description="second frame for terms that need video: video: the next frame of a video set; views: a second "
        "view of the same image, with exact flow; auto: video for video sets, else views",
    )
    consistency: bool = Field(
        False, description="report val/temporal_consistency; needs a video set, and validates on the next frames too"
    )
