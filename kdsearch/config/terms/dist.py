"""Settings of DIST."""

from __future__ import annotations

from typing import Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from kdsearch.config.terms.base import TermConfig


class DISTConfig(TermConfig):
    """Settings of the term `dist`."""

    beta: NonNegativeFloat = Field(
        1.0, description="weight of the relations between classes; published 1; range 0.1 to 10"
    )
    gamma: NonNegativeFloat = Field(
        1.0, description="weight of the relations within classes; published 1; range 0.1 to 10"
    )
    temperature: PositiveFloat = Field(1.0, description="softmax temperature T; published 1; usual range 1 to 4")
    mask_ignored: bool = Field(
        True, description="leave ignored pixels out of both parts; false: count all pixels, as the DIST code does"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.beta == 0 and self.gamma == 0:
            raise ValueError("beta and gamma are both 0; leave the term out instead")
        return self
