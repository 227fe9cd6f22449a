"""FRKDNet's location of features: where a pixel lies among the centres of the classes."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Shapes, Term
from kdsearch.distill.ops.features import match_size, over_norm, resized, unit
from kdsearch.distill.ops.labels import labels_at, masked_mean, prototypes
from kdsearch.distill.tap_term import TapTerm
from kdsearch.distill.taps import FLOAT, matched_pixels
from kdsearch.distill.terms.frkd_refine import entropy, foreground
from kdsearch.distill.terms.kd import check_logits, soft_kl
from kdsearch.models.output import SegOutput


class FRKDLocation(TapTerm):
    """`mean over pixels of KL(a_T || a_S)`, where `a` is the softmax of a pixel's cosines to the class centres / tau.

    Jiang et al., FRKDNet, 2023. A reconstruction: that a student mimics where features lie among those of the classes
    is the paper's, the formula is ours. Centres are means over the batch, of the present classes; each network has its
    own, so channels may differ and the scale of the features does not matter. 0 with fewer than two classes, and when
    both networks agree. Our weight is 1.

    Peak extra memory: O(B h w (C_S + K)).
    """

    name = "frkd_location"
    reconstructed = True

    class Config(TapTerm.Config):
        tau: PositiveFloat = Field(0.1, description="softmax temperature of the cosines; ours 0.1; range 0.03 to 0.5")
        mask: Literal["valid", "foreground"] = Field(
            "valid",
            description="pixels to average over: all valid ones, or those where the teacher's entropy is at most their "
            "image's mean",
        )

    config: Config

    def __init__(self, config: Config, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        if config.mask == "foreground":
            check_logits(student, teacher, info)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        feat_s, feat_t = match_size(student.taps[self.config.tap], teacher.taps[self.config.tap])
        label_bhw, valid_bhw = labels_at(target_bhw, feat_s.shape[-2:])
        profile_s, profile_t = (self._profile(feat, label_bhw, valid_bhw) for feat in (feat_s, feat_t))
        mask_bhw = valid_bhw
        if self.config.mask == "foreground":
            mask_bhw = foreground(entropy(resized(teacher.logits, feat_s.shape[-2:])), valid_bhw, None)
        return masked_mean(soft_kl(profile_s, profile_t, 1.0), mask_bhw)

    def _profile(self, feat_bchw: Tensor, label_bhw: Tensor, valid_bhw: Tensor) -> Tensor:
        """Cosines to the centres / tau, `[B, K, h, w]`; the lowest finite value for absent classes."""
        centre_kc, present_k = prototypes(feat_bchw, label_bhw, valid_bhw, self.info.num_classes)
        cosine_bkhw = class_cosines(feat_bchw, centre_kc)
        lowest = torch.finfo(cosine_bkhw.dtype).min
        return (cosine_bkhw / self.config.tau).masked_fill(~present_k[:, None, None], lowest)

    def estimate_bytes(self, batch: int) -> int:
        student, members, raised_s, raised_t = map_bytes(self, self.config.tap, batch)
        return max(raised_s + 2 * student + 7 * members, 2 * raised_t)


def class_cosines(feat_bchw: Tensor, centre_kc: Tensor) -> Tensor:
    """Cosine of each pixel to each centre, `[B, K, h, w]`; 0, without a gradient, where either vanishes."""
    dot_bkhw = (unit(centre_kc) @ feat_bchw.flatten(2)).view(len(feat_bchw), -1, *feat_bchw.shape[2:])
    return over_norm(dot_bkhw, feat_bchw)


def map_bytes(term: Term, tap: str, batch: int) -> tuple[int, int, int, int]:
    """Memory, where both networks' maps are compared, of the student's and of one number a class and pixel.

    Then of the up-sampled copies that this takes of the student's and of the teacher's map: 0 for the finer one.
    """
    pixels = matched_pixels(tap, term.shapes_s, term.shapes_t)
    size = FLOAT * batch * pixels
    raised_s, raised_t = (
        size * channels if height * width < pixels else 0
        for channels, height, width in (term.shapes_s[tap], term.shapes_t[tap])
    )
    return size * term.shapes_s[tap][0], size * term.info.num_classes, raised_s, raised_t
