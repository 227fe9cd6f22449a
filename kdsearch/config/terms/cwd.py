"""Settings of CWD, channel-wise distillation of logits and of a tap."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from kdsearch.config.terms.base import TermConfig
from kdsearch.config.terms.tap import TapTermConfig


class CWDConfig(TermConfig):
    """Settings of the term `cwd`."""

    tau: PositiveFloat = Field(4.0, description="softmax temperature; published 4; usual range 1 to 8")


class CWDFeatureConfig(TapTermConfig):
    """Settings of the term `cwd_feature`."""

    tau: PositiveFloat = Field(4.0, description="softmax temperature; published 4; usual range 1 to 8")
