"""Settings of CLFD, the contrastive feature distillation of CLNet."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from kdsearch.config.terms.base import TermConfig

Mode = Literal["proto", "spatial", "proto_spatial", "relation", "pixel_proto", "pixel_pixel", "memory"]

_MODES_OF_FIELD = {
    "symmetric": ("proto", "proto_spatial"),
    "chunk": ("pixel_pixel", "memory"),
    "anchors_per_class": ("pixel_pixel",),
    "queue": ("memory",),
    "pixels": ("memory",),
}


class CLFDConfig(TermConfig):
    """Settings of the term `clfd`."""

    default_tau: ClassVar[dict[str, float]] = {"memory": 0.07, "relation": 0.2}

    mode: Mode = Field(
        "proto", description="form of the contrast, see distill/ops/contrast.py; proto is the published default"
    )
    tau: PositiveFloat | None = Field(
        None,
        description="softmax temperature of cosine similarities; range 0.03 to 1; none: the authors' for the mode "
        "(0.1; memory 0.07; relation 0.2)",
    )
    layers: Literal["auto", "con", "con+sem", "sem", "head"] = Field(
        "auto",
        description="taps to contrast: con1, con2, ... (published), sem, or head; auto: the con taps that both "
        "networks have, else head",
    )
    symmetric: bool = Field(False, description="proto: average with the teacher-to-student direction (ours)")
    chunk: PositiveInt = Field(1024, description="pixel_pixel, memory: rows of the similarity matrix at a time")
    anchors_per_class: PositiveInt | None = Field(
        64,
        description="pixel_pixel: random pixels of each class of the batch; range 16 to 256; none: all, exact",
    )
    queue: PositiveInt = Field(60, description="memory: entries per class; the authors use 60 to 90; range 30 to 300")
    pixels: PositiveInt = Field(10, description="memory: pixels stored per class, image and step; the authors' value")

    @property
    def temperature(self) -> float:
        """`tau`, or the mode's default."""
        return self.default_tau.get(self.mode, 0.1) if self.tau is None else self.tau

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field, modes in _MODES_OF_FIELD.items():
            if self.mode not in modes:
                remedy = f"leave it out, or use mode {' or '.join(modes)}"
                self.refuse_changed([field], f"in mode '{self.mode}'; {remedy}")
        return self
