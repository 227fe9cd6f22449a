"""The pair-wise-frame dependency of spatial-temporal consistency distillation."""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor

from kdsearch.config.terms.stc import StcFramesConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Requirements, Shapes, Term
from kdsearch.distill.ops.features import match_size, unit
from kdsearch.distill.ops.similarity import is_direct, pool_nodes
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
        nodes = [pool_nodes(feat_bchw, self.config.node) for feat_bchw in (now_s, later_s, now_t, later_t)]
        return frame_similarity(*nodes)


def frame_similarity(now_s_bchw: Tensor, later_s_bchw: Tensor, now_t_bchw: Tensor, later_t_bchw: Tensor) -> Tensor:
    """`mean over images of ||A_S - A_T||_F^2 / n^2`: A are the cosines between both frames' nodes, n in each."""
    now_s, later_s, now_t, later_t = (
        unit(nodes_bchw.flatten(2), 1) for nodes_bchw in (now_s_bchw, later_s_bchw, now_t_bchw, later_t_bchw)
    )
    nodes = now_s.shape[2]
    if is_direct(nodes, now_s.shape[1], now_t.shape[1]):
        return (now_s.transpose(1, 2) @ later_s - now_t.transpose(1, 2) @ later_t).square().mean()
    now_s, later_s, now_t, later_t = (tensor.double() for tensor in (now_s, later_s, now_t, later_t))
    total_b = _product(now_s, now_s, later_s, later_s) + _product(now_t, now_t, later_t, later_t)
    total_b = total_b - 2 * _product(now_s, now_t, later_s, later_t)
    return (total_b.clamp_min(0).mean() / nodes**2).to(now_s_bchw.dtype)


def _product(a_bcn: Tensor, b_bcn: Tensor, c_bcn: Tensor, d_bcn: Tensor) -> Tensor:
    """Sum over all entries of `a b^T * c d^T`, for each image."""
    return ((a_bcn @ b_bcn.transpose(1, 2)) * (c_bcn @ d_bcn.transpose(1, 2))).sum((1, 2))
