"""Settings of terms that reconstruct the teacher's map from a masked student map (MGD, Af-DCD)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from kdsearch.config.terms.tap import TapTermConfig

MaskMode = Literal["random", "center", "none"]
Projector = Literal["mgd", "enhanced", "light"]


class GeneratorConfig(TapTermConfig):
    """Settings of a term with a `MaskedGenerator`; complete for `mgd`."""

    tap: str = Field("c4", description="feature map to distil; published: the encoder's last stage, c4")
    mask_mode: MaskMode = Field(
        "random",
        description="which student pixels are hidden: random ones (published), the centre ninth, or none",
    )
    mask_ratio: float = Field(
        0.75, gt=0, lt=1, description="mask_mode random: share of pixels that are hidden; published 0.75, range 0.3-0.9"
    )
    projector: Projector = Field(
        "mgd",
        description="generator: mgd (two 3x3 convolutions, published), enhanced (four, twice the cost), or light "
        "(ours: through light_rank channels, far cheaper)",
    )
    light_rank: PositiveInt = Field(256, description="projector light: channels of its 3x3 convolution; range 128-512")

    @model_validator(mode="after")
    def _check_generator(self) -> Self:
        if self.mask_mode != "random":
            where = f"with mask_mode '{self.mask_mode}'; leave it out, or set mask_mode: random"
            self.refuse_changed(["mask_ratio"], where)
        if self.projector != "light":
            where = f"with projector '{self.projector}'; leave it out, or set projector: light"
            self.refuse_changed(["light_rank"], where)
        return self
