"""Settings of Hinton's distillation."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from kdsearch.config.terms.base import TermConfig


class KDConfig(TermConfig):
    """Settings of the term `kd`."""

    temperature: PositiveFloat = Field(
        1.0, description="softmax temperature T; published 1 (CIRKD, Af-DCD); usual range 1 to 8"
    )
    mask_ignored: bool = Field(
        True, description="leave ignored pixels out; false: mean over all pixels, as the CIRKD code does"
    )
