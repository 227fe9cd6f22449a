"""FRKDNet's location of features: the position of a pixel relative to the class centres."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from kdsearch.config.terms.frkd import FRKDLocationConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.data.map_grid import resize_map
from kdsearch.distill.base import FramePair, Shapes
from kdsearch.distill.ops.centres import class_cosines
from kdsearch.distill.ops.features import match_size
from kdsearch.distill.ops.labels import labels_at, masked_mean, prototypes
from kdsearch.distill.ops.logits import check_logits, entropy, foreground, soft_kl
from kdsearch.distill.tap_term import TapTerm
from kdsearch.distill.taps import map_bytes
from kdsearch.models.seg_output import SegOutput


class FRKDLocation(TapTerm):
    """`mean over pixels of KL(a_T || a_S)`, where `a` is the softmax of a pixel's cosines to the class centres / tau.

    Jiang et al., FRKDNet, 2023. A reconstruction: the imitation of feature positions relative to the classes is the
    paper's, the formula is ours. Centres are means over the batch, of the present classes; each network has its
    own, so channels may differ and the scale of the features does not matter. 0 with fewer than two classes, and when
    both networks agree. Our weight is 1.

    Peak extra memory: O(B h w (C_S + K)).
    """

    name = "frkd_location"
    reconstructed = True

    Config: TypeAlias = FRKDLocationConfig
    config: FRKDLocationConfig

    def __init__(self, config: FRKDLocationConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        if config.mask == "foreground":
            check_logits(student, teacher, info)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        feat_s, feat_t = match_size(student.taps[self.config.tap], teacher.taps[self.config.tap])
        label_bhw, valid_bhw = labels_at(target_bhw, feat_s.shape[-2:])
        profile_s, profile_t = (self._profile(feat, label_bhw, valid_bhw) for feat in (feat_s, feat_t))
        mask_bhw = valid_bhw
        if self.config.mask == "foreground":
            mask_bhw = foreground(entropy(resize_map(teacher.logits, feat_s.shape[-2:])), valid_bhw, None)
        return masked_mean(soft_kl(profile_s, profile_t, 1.0), mask_bhw)

    def _profile(self, feat_bchw: Tensor, label_bhw: Tensor, valid_bhw: Tensor) -> Tensor:
        """Cosines to the centres / tau, `[B, K, h, w]`; the lowest finite value for absent classes."""
        centre_kc, present_k = prototypes(feat_bchw, label_bhw, valid_bhw, self.info.num_classes)
        cosine_bkhw = class_cosines(feat_bchw, centre_kc)
        lowest = torch.finfo(cosine_bkhw.dtype).min
        return (cosine_bkhw / self.config.tau).masked_fill(~present_k[:, None, None], lowest)

    def estimate_bytes(self, batch: int) -> int:
        student, members, raised_s, raised_t = map_bytes(
            self.config.tap, self.shapes_s, self.shapes_t, self.info.num_classes, batch
        )
        return max(raised_s + 2 * student + 7 * members, 2 * raised_t)
