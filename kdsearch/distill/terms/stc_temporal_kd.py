"""The teacher's later frame as a target: temporal part of spatial-temporal consistency distillation."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor
from torch.nn import functional as F

from kdsearch.config.terms.stc import StcTemporalKDConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Requirements, Shapes, Term
from kdsearch.distill.ops.features import match_size
from kdsearch.distill.ops.flow import both_shown, correspondence, correspondence_bytes, input_size, warp
from kdsearch.distill.ops.labels import labels_at, masked_mean
from kdsearch.distill.ops.logits import check_logits
from kdsearch.models.seg_output import SegOutput


class StcTemporalKD(Term):
    """`T^2 * mean over pixels of V * R * KL(W(p_T(t+k)) || p_S(t))`: the teacher's later frame, warped along the flow.

    Temporal consistency of STC-KD (Wang et al., 2022). A reconstruction: the term is ours, from the paper's sentence on
    inter-frame relations by a flow and a segmentation network; the warp W and the occlusion weight V are ETC's (Liu et
    al., ECCV 2020). R is 1 where the teacher's warped class is also its own in the first frame, else 0. The mean is
    over labelled pixels whose flow stays in the frame, so pixels with low V or R reduce the value. It is 0 where both
    networks agree and nothing moves. Weight 1 is the usual start (ours).

    Peak extra memory: O(B K h w).
    """

    name = "stc_temporal_kd"
    reconstructed = True

    Config: TypeAlias = StcTemporalKDConfig
    config: StcTemporalKDConfig

    def __init__(self, config: StcTemporalKDConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        check_logits(student, teacher, info)

    @property
    def requirements(self) -> Requirements:
        return Requirements(video=True)

    def estimate_bytes(self, batch: int) -> int:
        classes, *size_s = self.shapes_s["logits"]
        _, *size_t = self.shapes_t["logits"]
        map_s, map_t = (4 * batch * classes * height * width for height, width in (size_s, size_t))
        # Up-sampled: the teacher's two maps, or the student's one and its gradient.
        resized = 0 if size_s == size_t else 2 * max(map_s, map_t)
        seen = correspondence_bytes(batch, input_size(self.shapes_s), self.info.channels)
        # The gradient of the batch, later frames included, is two maps of the student.
        return resized + max(seen, 3 * max(map_s, map_t) + 2 * map_s)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        assert frames is not None
        temperature = self.config.temperature
        student_bkhw, teacher_bkhw = match_size(student.logits, teacher.logits)
        _, later_bkhw = match_size(student.logits, frames.teacher.logits)
        flow_b2hw, weight_bhw, inside_bhw = correspondence(frames, student_bkhw)
        _, valid_bhw = labels_at(target_bhw, student_bkhw.shape[-2:])

        target_bkhw = warp(F.softmax(later_bkhw / temperature, 1), flow_b2hw)
        agree_bhw = target_bkhw.argmax(1) == teacher_bkhw.argmax(1)
        log_s = F.log_softmax(student_bkhw / temperature, 1)
        divergence_bhw = F.kl_div(log_s, target_bkhw, reduction="none").sum(1) * temperature**2
        counted_bhw = valid_bhw & inside_bhw
        shown_bhw = both_shown(frames, student, flow_b2hw)
        if shown_bhw is not None:
            counted_bhw = counted_bhw & shown_bhw
        return masked_mean(divergence_bhw * weight_bhw * agree_bhw, counted_bhw)
