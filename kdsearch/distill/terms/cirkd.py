"""CIRKD within the mini-batch: cross-image relations between pixels."""

from __future__ import annotations

import math
from typing import TypeAlias

from torch import Tensor
from torch.nn import functional as F

from kdsearch.config.terms.cirkd import CIRKDConfig
from kdsearch.distill.base import FramePair
from kdsearch.distill.ops.features import match_size, pixels, unit
from kdsearch.distill.ops.labels import counted_at
from kdsearch.distill.ops.relation_kl import block_rows, relation_kl
from kdsearch.distill.tap_term import TapTerm
from kdsearch.distill.taps import FLOAT, resized_bytes
from kdsearch.models.seg_output import SegOutput


class CIRKD(TapTerm):
    """`mean over pixels, and over the images of the batch, of KL(p_T || p_S)` (Yang et al., CVPR 2022).

    `p` is the softmax of a pixel's cosines to all pixels of one image, divided by tau, within each network, so without
    an adapter. Zero when both networks agree. The published weight is 1.

    Time grows with `(B h w)^2 C`. Peak extra memory: O(B h w (C_S + C_T) + r B h w), with r rows of similarities at a
    time, r B h w at most 4 M and at most an eighth of the whole matrix.
    """

    name = "cirkd"

    Config: TypeAlias = CIRKDConfig
    config: CIRKDConfig

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        feat_s, feat_t = match_size(student.taps[self.config.tap], teacher.taps[self.config.tap])
        valid_bhw = counted_at(target_bhw, student, feat_s.shape[-2:], self.config.mask_ignored)
        if self.config.pool > 1:
            feat_s, feat_t = (_pooled(feat, valid_bhw, self.config.pool) for feat in (feat_s, feat_t))
            valid_bhw = F.max_pool2d(valid_bhw.to(feat_s.dtype), self.config.pool, ceil_mode=True) > 0
        unit_s, unit_t = unit(pixels(feat_s)), unit(pixels(feat_t))
        valid_n = valid_bhw.flatten()
        images = valid_bhw.flatten(1).any(1).sum()  # an image without a valid pixel adds 0
        weight_n = valid_n.to(unit_s.dtype) / (valid_n.sum() * images).clamp_min(1)
        keep_n = valid_n if self.config.mask_ignored or student.inside_bhw is not None else None
        return relation_kl(unit_s, unit_t, unit_s, unit_t, weight_n, keep_n, self.config.tau, groups=len(feat_s))

    def estimate_bytes(self, batch: int) -> int:
        tap, side = self.config.tap, self.config.pool
        height, width = (max(sizes) for sizes in zip(self.shapes_s[tap][1:], self.shapes_t[tap][1:], strict=True))
        rows = batch * math.ceil(height / side) * math.ceil(width / side)
        map_s, map_t = (FLOAT * rows * shapes[tap][0] for shapes in (self.shapes_s, self.shapes_t))
        resized = resized_bytes(tap, self.shapes_s, self.shapes_t, batch)
        sweep = 4 * map_s + map_t + 3 * FLOAT * block_rows(rows, rows) * rows
        if side == 1:
            return resized + sweep
        full_s, full_t = (FLOAT * batch * height * width * shapes[tap][0] for shapes in (self.shapes_s, self.shapes_t))
        return resized + max(full_s + sweep, 3 * full_s + 2 * map_s, full_s + full_t + 2 * map_t)


def _pooled(feat_bchw: Tensor, valid_bhw: Tensor, side: int) -> Tensor:
    """The mean over the valid pixels of each window of side x side; 0 where there are none."""
    valid_b1hw = valid_bhw[:, None].to(feat_bchw.dtype)
    total_bchw = F.avg_pool2d(feat_bchw * valid_b1hw, side, ceil_mode=True)
    return total_bchw / F.avg_pool2d(valid_b1hw, side, ceil_mode=True).clamp_min(1 / side**2)
