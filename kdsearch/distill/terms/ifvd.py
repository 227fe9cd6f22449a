"""IFVD: intra-class feature variation distillation."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

from kdsearch.config.terms.ifvd import IFVDConfig
from kdsearch.distill.base import FramePair
from kdsearch.distill.ops.centres import centre_cosines, image_centres
from kdsearch.distill.ops.features import match_size
from kdsearch.distill.ops.labels import labels_at, masked_mean
from kdsearch.distill.tap_term import TapTerm
from kdsearch.distill.taps import FLOAT, matched_pixels, resized_bytes
from kdsearch.models.seg_output import SegOutput


class IFVD(TapTerm):
    """Mean squared difference of both networks' cosines between a pixel and its class's centre.

    Wang et al., ECCV 2020.
    A centre is the mean feature of a class's pixels in one image; each network has its own, so channels may differ.
    Zero when both networks agree. Published weight: 20 (CIRKD), 50 (the paper) or 200 (its code), all with
    `count_ignored`.

    Peak extra memory: O(B h w (C_S + K)).
    """

    name = "ifvd"

    Config: TypeAlias = IFVDConfig
    config: IFVDConfig

    def estimate_bytes(self, batch: int) -> int:
        shapes, classes = (self.config.tap, self.shapes_s, self.shapes_t), self.info.num_classes
        numbers = batch * matched_pixels(*shapes) * (2 * self.shapes_s[self.config.tap][0] + 2.25 * classes + 4)
        return int(FLOAT * numbers) + resized_bytes(*shapes, batch)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        feat_s, feat_t = match_size(student.taps[self.config.tap], teacher.taps[self.config.tap])
        label_bhw, valid_bhw = labels_at(target_bhw, feat_s.shape[-2:])
        cosine_s, cosine_t = (
            centre_cosines(feat, image_centres(feat, label_bhw, valid_bhw, self.info.num_classes), label_bhw)
            for feat in (feat_s, feat_t)
        )
        value = masked_mean((cosine_s - cosine_t).square(), valid_bhw)
        if not self.config.count_ignored:
            return value
        return value * masked_mean(valid_bhw.to(value.dtype), student.inside_at(feat_s.shape[-2:]))
