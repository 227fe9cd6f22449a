"""FRKDNet's distances in the feature space: between the classes, and of a class's pixels to its centre."""

from __future__ import annotations

import torch
from torch import Tensor

from kdsearch.distill.base import FramePair
from kdsearch.distill.ops.centres import centre_cosines
from kdsearch.distill.ops.features import match_size
from kdsearch.distill.ops.labels import labels_at, masked_mean, prototypes
from kdsearch.distill.tap_term import TapTerm
from kdsearch.distill.taps import map_bytes
from kdsearch.models.seg_output import SegOutput


class FRKDInter(TapTerm):
    """Mean squared difference, over pairs of classes, of both networks' distances between their centres.

    Jiang et al., FRKDNet, 2023. A reconstruction: the distillation of distances between classes is the paper's, the
    formula is ours. Centres are means over the batch, of the present classes; a network's distances are divided by
    their mean, so channels may differ and the scale of the features does not matter. 0 with fewer than two classes,
    and when both networks agree. Our weight is 1.

    Peak extra memory: O(B h w (C_S + K)).
    """

    name = "frkd_inter"
    reconstructed = True

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        feat_s, feat_t = match_size(student.taps[self.config.tap], teacher.taps[self.config.tap])
        label_bhw, valid_bhw = labels_at(target_bhw, feat_s.shape[-2:])
        centre_s, present_k = prototypes(feat_s, label_bhw, valid_bhw, self.info.num_classes)
        centre_t, _ = prototypes(feat_t, label_bhw, valid_bhw, self.info.num_classes)
        pairs_kk = (present_k[:, None] & present_k).triu(1)
        difference_kk = relative_distances(centre_s, pairs_kk) - relative_distances(centre_t, pairs_kk)
        return masked_mean(difference_kk.square(), pairs_kk)

    def estimate_bytes(self, batch: int) -> int:
        student, members, _, raised_t = map_bytes(
            self.config.tap, self.shapes_s, self.shapes_t, self.info.num_classes, batch
        )
        return max(raised_t + 2 * student, raised_t + student + 2 * members, 2 * raised_t)


class FRKDIntra(TapTerm):
    """Mean squared difference of both networks' cosines between a pixel and its class's centre over the batch.

    Jiang et al., FRKDNet, 2023. A reconstruction: the distillation of distances within a class is the paper's, the
    formula is IFVD's with centres of the whole batch. Channels may differ and the scale of the features does not
    matter. Zero when both networks agree. Our weight is 20.

    Peak extra memory: O(B h w (C_S + K)).
    """

    name = "frkd_intra"
    reconstructed = True

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        feat_s, feat_t = match_size(student.taps[self.config.tap], teacher.taps[self.config.tap])
        label_bhw, valid_bhw = labels_at(target_bhw, feat_s.shape[-2:])

        def cosines(feat_bchw: Tensor) -> Tensor:
            centre_kc, _ = prototypes(feat_bchw, label_bhw, valid_bhw, self.info.num_classes)
            return centre_cosines(feat_bchw, centre_kc, label_bhw)

        return masked_mean((cosines(feat_s) - cosines(feat_t)).square(), valid_bhw)

    def estimate_bytes(self, batch: int) -> int:
        student, members, raised_s, raised_t = map_bytes(
            self.config.tap, self.shapes_s, self.shapes_t, self.info.num_classes, batch
        )
        return max(raised_s + 3 * student + 2 * members, 2 * raised_t)


def relative_distances(centre_kc: Tensor, pairs_kk: Tensor, eps: float = 1e-8) -> Tensor:
    """Euclidean distances between centres, `[K, K]`, over their mean over `pairs`; all 0 if that vanishes."""
    # The form with a matrix product loses precision for close centres.
    distance_kk = torch.cdist(centre_kc, centre_kc, compute_mode="donot_use_mm_for_euclid_dist")
    mean = masked_mean(distance_kk, pairs_kk)
    vanishes = mean <= eps
    return torch.where(vanishes, 0.0, distance_kk / torch.where(vanishes, 1.0, mean))
