"""Af-DCD: augmentation-free dense contrastive distillation."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional as F

from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Shapes
from kdsearch.distill.ops.generators import GeneratorConfig, MaskedGenerator, generator_bytes
from kdsearch.distill.ops.patch_contrast import Layout, Metric, Mode, contrast_bytes, patch_contrast
from kdsearch.distill.tap_term import TapTerm
from kdsearch.distill.taps import matched_pixels
from kdsearch.errors import UserError
from kdsearch.models.output import SegOutput

_CONTRAST_ONLY = ("mode", "metric", "tau", "groups", "patch", "pool", "exclude_same_group")
_WITHOUT_EFFECT = {"omni": (), "spatial": ("groups", "exclude_same_group"), "channel": ("patch", "exclude_same_group")}


class AfDCD(TapTerm):
    """`w_fd * L_fd + w_ctr * L_ctr` between the teacher's map and a generator's guess of it from the student's.

    Fan et al., "Augmentation-free Dense Contrastive Knowledge Distillation for Efficient Semantic Segmentation",
    NeurIPS 2023. L_fd is the mean squared error, over all elements. L_ctr max-pools both maps, splits them into
    patches and channel groups, and contrasts each vector of the guess with the teacher's of its patch: InfoNCE, mean
    over anchors (see `patch_contrast`). Modes: `omni`, the published one, contrasts across pixels and groups;
    `spatial` all channels across the pixels of a patch; `channel` the groups of one pixel. The last two, `cos` and the
    projector `light` are ours. Labels play no part, and the value is not 0 when both networks agree.

    The weights are of means, so `weight` stays 1. The authors sum; theirs are (lambda_fd C_T h w, lambda_ctr groups):
    Cityscapes 33.6 and .08, VOC 8.4 and .08, ADE20K 8.4 and .64, COCO-Stuff 41.9 and .08, CamVid 33.2 and .16 (there
    with `pool: 1`).

    Peak extra memory: O(B C_T h w + the generator's weights, for their gradient); the pairs take a constant part.
    """

    name = "afdcd"

    class Config(GeneratorConfig):
        w_fd: NonNegativeFloat = Field(
            34.0, description="weight of the mean squared error; published 33.6 on Cityscapes; range 1 to 300"
        )
        w_ctr: NonNegativeFloat = Field(
            0.08, description="weight of the contrast; published 0.08 on Cityscapes; range 0.01 to 3"
        )
        mode: Mode = Field("omni", description="what is contrasted: omni (published), spatial or channel")
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
                raise ValueError("one vector has nothing to be told from; raise 'groups' or 'patch'")
            if self.layout.groups == 1 and self.layout.exclude_same_group and self.w_ctr:
                raise ValueError(
                    "with one group 'exclude_same_group' leaves no negatives; use mode 'spatial', or more 'groups'"
                )
            return self

    config: Config

    def __init__(self, config: Config, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        channels_s, channels_t = student[config.tap][0], teacher[config.tap][0]
        if config.w_ctr:
            _check_groups(config.layout.groups, channels_t)
            _check_size(config, student[config.tap][1:], teacher[config.tap][1:])
        self.masked_generator = MaskedGenerator(config, channels_s, channels_t)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        config = self.config
        guess_bchw, teacher_bchw = self.masked_generator(student.taps[config.tap], teacher.taps[config.tap])
        total = student.logits.new_zeros(())
        if config.w_fd:
            total = total + config.w_fd * F.mse_loss(guess_bchw, teacher_bchw)
        if config.w_ctr:
            if config.pool > 1:
                guess_bchw, teacher_bchw = (F.max_pool2d(x, config.pool) for x in (guess_bchw, teacher_bchw))
            value = patch_contrast(guess_bchw, teacher_bchw, config.layout, config.metric, config.temperature)
            total = total + config.w_ctr * value
        return total

    def estimate_bytes(self, batch: int) -> int:
        config = self.config
        peak, held = generator_bytes(config, self.shapes_s, self.shapes_t, batch)
        if not config.w_ctr:
            return peak
        channels, pixels = self.shapes_t[config.tap][0], matched_pixels(config.tap, self.shapes_s, self.shapes_t)
        contrast = contrast_bytes(batch * pixels, channels, config.layout, config.metric, config.pool)
        return max(peak, held + contrast)  # the contrast's temporaries are gone when the generator's backward starts


def _check_groups(groups: int, channels: int) -> None:
    if channels % groups:
        divisors = [n for n in range(2, min(channels, 128) + 1) if channels % n == 0]
        raise UserError(
            f"afdcd: {groups} groups do not divide the teacher's {channels} channels; set groups to one of "
            f"{', '.join(map(str, divisors))}."
        )


def _check_size(config: AfDCD.Config, size_s: tuple[int, ...], size_t: tuple[int, ...]) -> None:
    """Raise `UserError` unless one patch fits into the pooled maps at the size where they are compared."""
    height, width = max(size_t, size_s, key=lambda size: size[0] * size[1])
    least, patch = min(height, width), config.layout.patch
    if least // config.pool >= patch:
        return
    pools = [pool for pool in (2, 1) if pool < config.pool and least // pool >= patch]
    remedies = [f"pool: {pools[0]}"] if pools else []
    if config.mode == "omni" or (config.mode == "spatial" and least > 1):
        remedies.append(f"patch: {least} with pool: 1")
    raise UserError(
        f"afdcd: '{config.tap}' is {height} x {width} pixels, {height // config.pool} x {width // config.pool} after "
        f"pool {config.pool}, less than a patch of {patch} x {patch}; set {' or '.join(remedies) or 'w_ctr: 0'}."
    )
