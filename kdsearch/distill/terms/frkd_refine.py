"""FRKDNet's feature refinement: separate losses for certain and uncertain pixels of the teacher."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from kdsearch.config.terms.frkd import FRKDRefineConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.data.map_grid import resize_map
from kdsearch.distill.base import FramePair, Shapes
from kdsearch.distill.ops.features import channel_adapter, match_size, unit
from kdsearch.distill.ops.labels import labels_at, masked_mean
from kdsearch.distill.ops.logits import check_logits, entropy, foreground
from kdsearch.distill.tap_term import TapTerm
from kdsearch.distill.taps import FLOAT, matched_pixels
from kdsearch.models.seg_output import SegOutput


class FRKDRefine(TapTerm):
    """`L_fg + bg_ratio * L_bg`, each the mean squared difference of normalised features on its pixels.

    Jiang et al., FRKDNet, 2023. A reconstruction: the separation of content from background noise and the removal of
    false knowledge of the teacher are the paper's, the formulas are ours. Foreground are the pixels where the teacher's
    prediction has low entropy, background all other valid ones; a part without pixels is 0. With `soft` there are
    no parts: each pixel has the weight `exp(-entropy / t_e)`, scaled to mean 1 over the valid pixels of the batch.

    Where channels differ, a 1x1 convolution without bias brings the student to the teacher's. Zero when both networks
    agree and share channels. Our weight is 10.

    Peak extra memory: O(B C_T h w).
    """

    name = "frkd_refine"
    reconstructed = True

    Config: TypeAlias = FRKDRefineConfig
    config: FRKDRefineConfig

    def __init__(self, config: FRKDRefineConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        check_logits(student, teacher, info)
        self.adapter = channel_adapter(student[config.tap][0], teacher[config.tap][0])

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        config = self.config
        feat_s, feat_t = match_size(self.adapter(student.taps[config.tap]), teacher.taps[config.tap])
        label_bhw, valid_bhw = labels_at(target_bhw, feat_s.shape[-2:])
        teacher_bkhw = resize_map(teacher.logits, feat_s.shape[-2:])
        entropy_bhw = entropy(teacher_bkhw)
        trusted_bhw = valid_bhw
        if config.filter_wrong:
            trusted_bhw = valid_bhw & (teacher_bkhw.argmax(1) == label_bhw)
        error_bhw = (self._normalised(feat_s, valid_bhw) - self._normalised(feat_t, valid_bhw)).square().mean(1)
        if config.soft:
            weight_bhw = torch.where(trusted_bhw, (-entropy_bhw / config.t_e).exp(), 0.0)
            scale = masked_mean(weight_bhw, valid_bhw).clamp_min(torch.finfo(weight_bhw.dtype).tiny)
            return masked_mean(error_bhw * weight_bhw / scale, valid_bhw)
        rho = config.rho if config.thr == "quantile" else None
        front_bhw = foreground(entropy_bhw, valid_bhw, rho) & trusted_bhw
        back_bhw = valid_bhw & ~front_bhw
        return masked_mean(error_bhw, front_bhw) + config.bg_ratio * masked_mean(error_bhw, back_bhw)

    def _normalised(self, feat_bchw: Tensor, valid_bhw: Tensor) -> Tensor:
        if self.config.norm == "l2":
            return unit(feat_bchw, 1)
        return standardised(feat_bchw, valid_bhw) if self.config.norm == "std" else feat_bchw

    def estimate_bytes(self, batch: int) -> int:
        tap = self.config.tap
        pixels = FLOAT * batch * matched_pixels(tap, self.shapes_s, self.shapes_t)
        map_t, prediction = pixels * self.shapes_t[tap][0], pixels * self.info.num_classes
        parameters = FLOAT * sum(parameter.numel() for parameter in self.adapter.parameters())
        return max((5 if self.config.norm == "none" else 6) * map_t, 2 * map_t + 3 * prediction) + parameters


def standardised(feat_bchw: Tensor, valid_bhw: Tensor, eps: float = 1e-5) -> Tensor:
    """Each channel of each image with mean 0 and variance 1 over its valid pixels; `eps` is added to the variance."""
    valid_b1hw = valid_bhw[:, None].to(feat_bchw.dtype)
    count_b111 = valid_b1hw.sum((2, 3), keepdim=True).clamp_min(1)
    centred_bchw = feat_bchw - (feat_bchw * valid_b1hw).sum((2, 3), keepdim=True) / count_b111
    variance_bc11 = (centred_bchw.square() * valid_b1hw).sum((2, 3), keepdim=True) / count_b111
    return centred_bchw * (variance_bc11 + eps).rsqrt()
