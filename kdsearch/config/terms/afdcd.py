"""Settings of Af-DCD, augmentation-free dense contrastive distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from kdsearch.config.terms.generator import GeneratorConfig

Mode = Literal["omni", "spatial", "channel"]
Metric = Literal["l1", "cos"]

_CONTRAST_ONLY = ("mode", "metric", "tau", "groups", "patch", "pool", "exclude_same_group")
_WITHOUT_EFFECT = {"omni": (), "spatial": ("groups", "exclude_same_group"), "channel": ("patch", "exclude_same_group")}


@dataclass(frozen=True)
class Layout:
    """Partition of a map into independent contrast problems.

    `omni`: a problem is a patch, a vector one of `groups` channel groups at one pixel; `spatial`: the same with one
    group; `channel`: a problem is a pixel. `exclude_same_group` leaves out the pairs of one group at two pixels.
    """

    groups: int
    patch: int
    exclude_same_group: bool

    @property
    def vectors(self) -> int:
        """Vectors per problem (L)."""
        return self.patch**2 * self.groups


class AfDCDConfig(GeneratorConfig):
    """Settings of the term `afdcd`."""

    w_fd: NonNegativeFloat = Field(
        34.0, description="weight of the mean squared error; published 33.6 on Cityscapes; range 1 to 300"
    )
    w_ctr: NonNegativeFloat = Field(
        0.08, description="weight of the contrast; published 0.08 on Cityscapes; range 0.01 to 3"
    )
    mode: Mode = Field("omni", description="form of the contrast: omni (published), spatial or channel")
    metric: Metric = Field("l1", description="similarity: negative L1 distance (published) or cosine")
    tau: PositiveFloat | None = Field(
        None,
        description="softmax temperature; none: 0.07, published for l1, where distances are so large that it only "
        "scales the gradient (w_ctr / tau); metric cos: range 0.03 to 0.5",
    )
    groups: PositiveInt = Field(
        16, description="modes omni, channel: channel groups, a divisor of the teacher's channels; published 16"
    )
    patch: PositiveInt = Field(4, description="modes omni, spatial: pixels along a patch's side; published 4")
    pool: Literal[1, 2, 4] = Field(
        4, description="max-pooling before the contrast; published 4, 1 for small maps (CamVid)"
    )
    exclude_same_group: bool = Field(
        True,
        description="mode omni: a group at the other pixels of a patch is no negative, as in the authors' code",
    )

    @property
    def temperature(self) -> float:
        """`tau`, or the default."""
        return 0.07 if self.tau is None else self.tau

    @property
    def layout(self) -> Layout:
        """How the pooled maps fall into problems."""
        return Layout(
            1 if self.mode == "spatial" else self.groups,
            1 if self.mode == "channel" else self.patch,
            self.mode == "omni" and self.exclude_same_group,
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.w_ctr == 0:
            if self.w_fd == 0:
                raise ValueError("'w_fd' and 'w_ctr' are both 0; give one a weight, or leave afdcd out")
            self.refuse_changed(_CONTRAST_ONLY, "with 'w_ctr' 0; leave it out, or set w_ctr above 0")
        where = f"with mode '{self.mode}'; leave it out, or set mode: omni"
        self.refuse_changed(_WITHOUT_EFFECT[self.mode], where)
        if self.w_ctr and self.layout.vectors == 1:
            raise ValueError("a single vector has no negatives; raise 'groups' or 'patch'")
        if self.layout.groups == 1 and self.layout.exclude_same_group and self.w_ctr:
            raise ValueError(
                "with one group 'exclude_same_group' leaves no negatives; use mode 'spatial', or more 'groups'"
            )
        return self
