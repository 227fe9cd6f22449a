"""The pair-wise-frame dependency of spatial-temporal consistency distillation."""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor

from kdsearch.config.terms.stc import StcFramesConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Requirements, Shapes, Term
from kdsearch.distill.ops.features import match_size
from kdsearch.distill.ops.similarity import is_direct, pool_nodes, shown_nodes, similarity_error
from kdsearch.distill.taps import require_tap
from kdsearch.models.seg_output import SegOutput


class StcFrames(Term):
    """Similarities between the nodes of a frame and those of a later one, student's to teacher's.

    `mean over images of ||A_S - A_T||_F^2 / n^2`, A the n x n cosines between the nodes of both frames; 0 when the
    networks agree. Temporal consistency of STC-KD (Wang et al., 2022). A reconstruction: the formula is the pair-wise
    frame dependency of ETC (Liu et al., ECCV 2020), with true cosines, which their code has for unit vectors only. It
    uses no flow and reads no labels. Channels of the networks may differ. Weight 0.1 is the usual start (ours).

    Exact. With far more nodes than channels no n x n matrix is formed: the norm is expanded into products of C x C
    matrices, in fp64, as it is a difference of large numbers. Peak extra memory: O(B C (n + C)), else O(B n (n + C)).
    """

    name = "stc_frames"
    reconstructed = True

    Config: TypeAlias = StcFramesConfig
    config: StcFramesConfig

    def __init__(self, config: StcFramesConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        require_tap(self.name, "head", student, teacher)

    @property
    def requirements(self) -> Requirements:
        return Requirements(taps=("head",), video=True)

    def estimate_bytes(self, batch: int) -> int:
        (channels_s, *size_s), (channels_t, *size_t) = self.shapes_s["head"], self.shapes_t["head"]
        area_s, area_t = math.prod(size_s), math.prod(size_t)
        fine = size_s if area_s >= area_t else size_t
        nodes = pool_nodes(torch.empty(1, 1, *fine, device="meta"), self.config.node).numel()
        both = channels_s + channels_t
        held = 0  # in numbers of 4 bytes an image, of two frames each
        if area_s != area_t:
            held += 2 * math.prod(fine) * (channels_t if area_s > area_t else channels_s)
        if self.config.node != "none":
            held += 2 * nodes * (both + 2 * channels_s)  # nodes, and the indices of the student's
        if not is_direct(nodes, channels_s, channels_t):
            held += 6 * nodes * both + 4 * (both**2 + channels_s**2 + channels_t**2)  # unit vectors, and in fp64
        else:
            held += 2 * nodes * both + 4 * nodes**2
        # The gradients of two frames, each as large as the whole batch of both, exist after the rest is freed.
        return 4 * batch * max(held, 5 * channels_s * area_s)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        assert frames is not None
        now_s, now_t = match_size(student.taps["head"], teacher.taps["head"])
        later_s, later_t = match_size(frames.student.taps["head"], frames.teacher.taps["head"])
        now, later, now_teacher, later_teacher = (
            pool_nodes(feat_bchw, self.config.node) for feat_bchw in (now_s, later_s, now_t, later_t)
        )
        shown, shown_later = (
            shown_nodes(output, [feat_bchw.shape[-2:]], self.config.node)
            for output, feat_bchw in ((student, now_s), (frames.student, later_s))
        )
        return similarity_error(now, later, now_teacher, later_teacher, shown, shown_later)
