"""Settings of the terms of spatial-temporal consistency distillation (STC-KD)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from kdsearch.config.terms.base import TermConfig
from kdsearch.config.terms.skd import Node


class StcPairConfig(TermConfig):
    """Settings of the term `stc_pair`."""

    beta_c: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="weight of the CNN branch; the transformer's is 1 - beta_c; range 0 to 1; 0.5 is ours"
    )
    node: Node = Field(
        "stride2",
        description="places compared: stride{s} (max over s x s windows; stride2 in CIRKD), half (windows of half the "
        "map a side, SKD's), grid{g} (g x g equal windows over the map) or none (every pixel)",
    )
    tap: Literal["head", "c4"] = Field("head", description="features of the student and of each branch")


class StcMotionConfig(TermConfig):
    """Settings of the term `stc_motion`."""

    space: Literal["prob", "logit"] = Field(
        "prob",
        description="space of the comparison: prob, independent of the scale of the logits (ours), or logit (ETC)",
    )
    stop_gradient: bool = Field(
        False, description="hold the later frame fixed (ours); false: both frames learn, as in ETC"
    )
    resolution: Literal["low", "full"] = Field(
        "low",
        description="low: at the logits' own grid (ours); full: up-sampled to the input's, as for the task (ETC)",
    )
    mask_out_of_frame: bool = Field(
        True,
        description="leave out pixels whose flow leaves the frame (ours); false: compare them with the border (ETC)",
    )


class StcFramesConfig(TermConfig):
    """Settings of the term `stc_frames`."""

    node: Node = Field(
        "none",
        description="places compared: none (every pixel, ETC), stride{s} (max over s x s windows, cheaper), "
        "half (windows of half the map a side) or grid{g} (g x g windows over the map)",
    )


class StcTemporalKDConfig(TermConfig):
    """Settings of the term `stc_temporal_kd`."""

    temperature: PositiveFloat = Field(
        1.0, description="softmax temperature T of both networks; 1 as in SKD's and CIRKD's KD; usual range 1 to 4"
    )
