"""Af-DCD: augmentation-free dense contrastive distillation."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor
from torch.nn import functional as F

from kdsearch.config.terms.afdcd import AfDCDConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Shapes
from kdsearch.distill.ops.features import squared_error
from kdsearch.distill.ops.generators import MaskedGenerator, generator_bytes
from kdsearch.distill.ops.patch_contrast import contrast_bytes, patch_contrast
from kdsearch.distill.tap_term import TapTerm
from kdsearch.distill.taps import matched_pixels
from kdsearch.errors import UserError
from kdsearch.models.seg_output import SegOutput


class AfDCD(TapTerm):
    """`w_fd * L_fd + w_ctr * L_ctr` between the teacher's map and a generator's guess of it from the student's.

    Fan et al., "Augmentation-free Dense Contrastive Knowledge Distillation for Efficient Semantic Segmentation",
    NeurIPS 2023. L_fd is the mean squared error, over all elements. L_ctr max-pools both maps, splits them into
    patches and channel groups, and contrasts each vector of the guess with the teacher's of its patch: InfoNCE, mean
    over anchors (see `patch_contrast`). Modes: `omni`, the published one, contrasts across pixels and groups;
    `spatial` all channels across the pixels of a patch; `channel` the groups of one pixel. The last two, `cos` and the
    projector `light` are ours. Reads no labels. The value is not 0 where both networks agree.

    The weights are of means, so `weight` stays 1. The authors' losses are sums; their weights are (lambda_fd C_T h w,
    lambda_ctr groups): Cityscapes 33.6 and .08, VOC 8.4 and .08, ADE20K 8.4 and .64, COCO-Stuff 41.9 and .08, CamVid
    33.2 and .16 (there with `pool: 1`).

    Peak extra memory: O(B C_T h w + the generator's weights, for their gradient); the pairs take a constant part.
    """

    name = "afdcd"

    Config: TypeAlias = AfDCDConfig
    config: AfDCDConfig

    def __init__(self, config: AfDCDConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        channels_s, channels_t = student[config.tap][0], teacher[config.tap][0]
        if config.w_ctr:
            _check_groups(config.layout.groups, channels_t)
            _check_size(config, student[config.tap][1:], teacher[config.tap][1:])
        self.masked_generator = MaskedGenerator(config, channels_s, channels_t)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        config = self.config
        guess_bchw, teacher_bchw = self.masked_generator(student.taps[config.tap], teacher.taps[config.tap])
        inside_bhw = student.inside_at(guess_bchw.shape[-2:])
        total = student.logits.new_zeros(())
        if config.w_fd:
            total = total + config.w_fd * squared_error(guess_bchw, teacher_bchw, inside_bhw)
        if config.w_ctr:
            if config.pool > 1:
                guess_bchw, teacher_bchw = (F.max_pool2d(x, config.pool) for x in (guess_bchw, teacher_bchw))
                if inside_bhw is not None:
                    inside_bhw = F.max_pool2d(inside_bhw[:, None].float(), config.pool)[:, 0] > 0
            value = patch_contrast(
                guess_bchw, teacher_bchw, config.layout, config.metric, config.temperature, inside_bhw
            )
            total = total + config.w_ctr * value
        return total

    def estimate_bytes(self, batch: int) -> int:
        config = self.config
        peak, held = generator_bytes(config, self.shapes_s, self.shapes_t, batch)
        if not config.w_ctr:
            return peak
        channels, pixels = self.shapes_t[config.tap][0], matched_pixels(config.tap, self.shapes_s, self.shapes_t)
        contrast = contrast_bytes(batch * pixels, channels, config.layout, config.metric, config.pool)
        return max(peak, held + contrast)  # the contrast's temporaries are freed before the generator's backward pass


def _check_groups(groups: int, channels: int) -> None:
    if channels % groups:
        divisors = [n for n in range(2, min(channels, 128) + 1) if channels % n == 0]
        raise UserError(
            f"afdcd: {groups} groups do not divide the teacher's {channels} channels; set groups to one of "
            f"{', '.join(map(str, divisors))}."
        )


def _check_size(config: AfDCDConfig, size_s: tuple[int, ...], size_t: tuple[int, ...]) -> None:
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
