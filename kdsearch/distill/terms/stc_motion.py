"""The motion loss of spatial-temporal consistency distillation."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from kdsearch.config.terms.stc import StcMotionConfig
from kdsearch.data.map_grid import resize_map
from kdsearch.distill.base import FramePair, Requirements, Term
from kdsearch.distill.ops.flow import both_shown, correspondence, correspondence_bytes, input_size, warp
from kdsearch.distill.ops.labels import masked_mean
from kdsearch.models.seg_output import SegOutput


class StcMotion(Term):
    """Consistency of the student along the flow: `mean of (V * (z_S(t) - W(z_S(t+k))))^2` over pixels and classes.

    Temporal consistency of STC-KD (Wang et al., 2022). A reconstruction: the formula is the motion loss of ETC (Liu et
    al., ECCV 2020), where W warps along the flow and V reduces the weight of pixels whose colours differ; it reads
    neither teacher nor labels, and both frames have a gradient. Weight 0.1 is published, for `space` logit,
    `resolution` full and no mask, which together are ETC's loss; `prob` needs about ten times the weight (ours).

    Peak extra memory: O(B K h w) at the resolution of the comparison.
    """

    name = "stc_motion"
    reconstructed = True

    Config: TypeAlias = StcMotionConfig
    config: StcMotionConfig

    @property
    def requirements(self) -> Requirements:
        return Requirements(video=True)

    def estimate_bytes(self, batch: int) -> int:
        classes, height, width = self.shapes_s["logits"]
        size = input_size(self.shapes_s)
        if self.config.resolution == "full":
            height, width = size
        map_bytes = 4 * batch * classes * height * width
        # Maps of both frames and V; or, in the backward pass, also their gradients and the warped map.
        return max(2 * map_bytes + correspondence_bytes(batch, size, self.info.channels), 7 * map_bytes)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        assert frames is not None
        maps_bkhw = torch.cat([student.logits, frames.student.logits])
        if self.config.resolution == "full":
            maps_bkhw = resize_map(maps_bkhw, frames.flow_b2hw.shape[-2:])
        if self.config.space == "prob":
            maps_bkhw = maps_bkhw.softmax(1)
        now_bkhw, later_bkhw = maps_bkhw.chunk(2)
        if self.config.stop_gradient:
            later_bkhw = later_bkhw.detach()
        flow_b2hw, weight_bhw, inside_bhw = correspondence(frames, now_bkhw)
        error_bhw = (now_bkhw - warp(later_bkhw, flow_b2hw)).square().mean(1) * weight_bhw.square()
        counted_bhw = both_shown(frames, student, flow_b2hw)
        if self.config.mask_out_of_frame:
            counted_bhw = inside_bhw if counted_bhw is None else counted_bhw & inside_bhw
        return masked_mean(error_bhw, counted_bhw)
