"""Settings of training: the `train` section, and `teacher.train`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from kdsearch.config.strict import Strict


class TrainConfig(Strict):
    """Training of a network. The poly learning-rate schedule always spans all `epochs`."""

    epochs: PositiveInt = 200
    batch_size: PositiveInt = Field(8, description="images per step, over all ranks of the trial")
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: PositiveFloat = 6e-5
    weight_decay: NonNegativeFloat = 1e-2
    poly_power: PositiveFloat = 0.9
    precision: Literal["fp32", "bf16"] = "fp32"
    class_weights: Literal["none", "enet"] = Field(
        "none", description="enet: 1/ln(1.02 + class frequency) in the task loss (ENet, 2016)"
    )
    detail_weight: NonNegativeFloat = Field(
        1.0, description="weight of the supervised boundary and binary losses, for networks with detail heads"
    )
    aux_weight: NonNegativeFloat = Field(
        0.0,
        description="weight of the cross-entropy of an auxiliary FCN head on tap c3, in training only; usual value 0.4",
    )
    edge_width: Literal[3, 5, 7] = Field(5, description="width in pixels of the boundary label")
    terms_grad_clip: PositiveFloat = Field(15.0, description="gradient-norm limit of the terms' own parameters")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
