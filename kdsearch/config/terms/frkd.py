"""Settings of the terms of FRKDNet."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from kdsearch.config.terms.tap import TapTermConfig

_OF_THE_SPLIT = ("thr", "rho", "bg_ratio")


class FRKDRefineConfig(TapTermConfig):
    """Settings of the term `frkd_refine`."""

    thr: Literal["mean", "quantile"] = Field(
        "mean", description="foreground: entropy up to an image's mean, or up to its quantile rho; ours: mean"
    )
    rho: float = Field(0.7, gt=0, lt=1, description="thr quantile: share of foreground; ours 0.7; range 0.3 to 0.95")
    soft: bool = Field(False, description="weigh pixels by their entropy instead of splitting them")
    t_e: PositiveFloat = Field(
        0.2, description="soft: scale of the fall of the weight with the entropy (0 to 1); ours 0.2; range 0.05 to 1"
    )
    filter_wrong: bool = Field(
        False,
        description="exclude pixels that the teacher misclassifies from the foreground; with soft they have weight 0",
    )
    norm: Literal["none", "std", "l2"] = Field(
        "std",
        description="normalisation of the features of both networks; std: each channel of an image has mean 0 and "
        "variance 1 over its valid pixels; l2: each pixel has norm 1; ours: std",
    )
    bg_ratio: NonNegativeFloat = Field(
        0.5, description="weight of the background, as a share of the foreground's; 0.5 as in FGD; range 0 to 1"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        without_effect = list(_OF_THE_SPLIT) if self.soft else ["t_e"]
        if self.thr != "quantile" and not self.soft:
            without_effect.append("rho")
        self.refuse_changed(without_effect, f"with soft {str(self.soft).lower()} and thr '{self.thr}'; leave it out")
        return self


class FRKDLocationConfig(TapTermConfig):
    """Settings of the term `frkd_location`."""

    tau: PositiveFloat = Field(0.1, description="softmax temperature of the cosines; ours 0.1; range 0.03 to 0.5")
    mask: Literal["valid", "foreground"] = Field(
        "valid",
        description="pixels to average over: all valid ones, or those where the teacher's entropy is at most their "
        "image's mean",
    )
