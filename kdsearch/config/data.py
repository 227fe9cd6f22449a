"""Settings of the data set: the `data` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

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
        description="with frames 'views': how far apart two views of an image lie, as a share of the view; "
        "zoom and rotation (radians) differ by as much",
    )


class DataConfig(Strict):
    """The data set, and the size at which it is stored, trained and evaluated."""

    name: str = Field(description="reader: mfnet, scenes, ...")
    path: FilePath | None = Field(None, description="folder of the data set; built-in sets have none")
    size: Size = Field(description="height and width in pixels of stored images; evaluation size")
    crop: Size | None = Field(None, description="height and width of the training view; size when not given")
    options: dict[str, Scalar] = Field(default_factory=dict, description="keyword arguments of the reader")
    augment: Augment = Augment()
    frames: Literal["auto", "video", "views"] = Field(
        "auto",
        description="what terms that need video read: the next frame of a video set, or a second view of the same "
        "image, with exact flow; auto: video where the data set is one",
    )
    consistency: bool = Field(
        False, description="report val/temporal_consistency; needs a video set, and validates on its next frames too"
    )
