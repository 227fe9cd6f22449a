"""Settings of the adversarial term of SKD and STC-KD."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from kdsearch.config.terms.base import TermConfig


class AdversarialConfig(TermConfig):
    """Settings of the term `adversarial`."""

    mode: Literal["hinge", "wgan_gp"] = Field("hinge", description="loss of the discriminator: see the term")
    lr: PositiveFloat = Field(
        4e-4, description="learning rate of the discriminator, held constant; published 4e-4; range 1e-4 to 1e-3"
    )
    gp_weight: PositiveFloat = Field(10.0, description="wgan_gp: weight of the gradient penalty; published 10")
    width: PositiveInt = Field(64, description="channels of the discriminator's first layer; published 64")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mode == "hinge":
            self.refuse_changed(["gp_weight"], "in mode 'hinge'; leave it out, or use mode wgan_gp")
        return self
