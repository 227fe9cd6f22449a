"""Settings of DSRD, the detail and semantic response distillation of CLNet."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from kdsearch.config.strict import Listed
from kdsearch.config.terms.base import TermConfig


class DSRDConfig(TermConfig):
    """Settings of the term `dsrd`."""

    w_det: NonNegativeFloat = Field(1.0, description="weight of the detail part; published 1; range 0.03 to 10")
    w_sem: NonNegativeFloat = Field(1.0, description="weight of the semantic part; published 1; range 0.1 to 10")
    temperature: PositiveFloat = Field(
        1.0, description="softmax temperature T of the semantic part; published 1; range 1 to 4"
    )
    detail_source: Literal["auto", "heads", "derived"] = Field(
        "auto",
        description="heads: bound* and bin* of both networks (published); derived: from semantic probabilities; "
        "auto: heads where both networks have them",
    )
    foreground: Listed[tuple[NonNegativeInt, ...]] | None = Field(
        None, description="classes that are foreground in the derived maps; none: all but class 0"
    )
    form: Literal["kl", "soft_ce"] = Field(
        "kl",
        description="soft_ce: as published; kl: less the teacher's entropy, so zero at equality, same gradient",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.w_det == 0 and self.w_sem == 0:
            raise ValueError("w_det and w_sem are both 0; leave the term out instead")
        if self.foreground is not None and self.detail_source == "heads":
            raise ValueError("'foreground' has no effect with detail_source 'heads'; use 'derived', or leave it out")
        return self
