"""The spatial part of spatial-temporal consistency distillation."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from kdsearch.config.terms.stc import StcPairConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Requirements, Shapes, Term
from kdsearch.distill.ops.similarity import pair_similarity, pair_similarity_bytes, pool_nodes, shown_nodes
from kdsearch.distill.taps import require_tap
from kdsearch.errors import UserError
from kdsearch.models.seg_output import SegOutput


class StcPair(Term):
    """Similarities between the nodes of an image, student's to each branch of a two-branch teacher.

    `sum over branches r of beta_r * mean over images of ||G_S - G_r||_F^2 / n^2`, G the cosines between an image's n
    nodes; 0 when the networks agree. Spatial consistency of STC-KD (Wang et al., 2022). A reconstruction: the formula
    is the pair-wise term of SKD (Liu et al., CVPR 2019), once for each branch, with true cosines; `skd_pair` is the
    same for any teacher. Channels may differ. It reads no labels. Weight 10 is the usual start (SKD's term in CIRKD).

    Peak extra memory: O(B C (n + C)), or O(B n (n + C)) with fewer nodes than channels.
    """

    name = "stc_pair"
    reconstructed = True

    Config: TypeAlias = StcPairConfig
    config: StcPairConfig

    def __init__(self, config: StcPairConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        betas = {"cnn": config.beta_c, "transformer": 1 - config.beta_c}
        self.beta_of_tap = {f"{branch}.{config.tap}": beta for branch, beta in betas.items() if beta > 0}
        missing = [tap for tap in self.beta_of_tap if tap not in teacher]
        if missing:
            raise UserError(
                f"stc_pair: the teacher has no tap {' and no '.join(missing)}; "
                "choose a teacher with arch 'two_branch', or the term skd_pair, which works with any teacher."
            )
        require_tap(self.name, config.tap, student, teacher)

    @property
    def requirements(self) -> Requirements:
        return Requirements(taps=(self.config.tap,), teacher_taps=tuple(self.beta_of_tap))

    def estimate_bytes(self, batch: int) -> int:
        student, node = self.shapes_s[self.config.tap], self.config.node
        first, *others = (self.shapes_t[tap] for tap in self.beta_of_tap)
        total = pair_similarity_bytes(student, first, node, batch)
        for branch in others:  # the student's nodes exist already
            total += pair_similarity_bytes(_pooled(student, node), _pooled(branch, node), "none", batch)
        return total

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        feat_s, node = student.taps[self.config.tap], self.config.node
        nodes_s = pool_nodes(feat_s, node)
        total = student.logits.new_zeros(())
        for tap, beta in self.beta_of_tap.items():
            nodes_t = pool_nodes(teacher.taps[tap], node)
            shown_bhw = shown_nodes(student, (feat_s.shape[-2:], teacher.taps[tap].shape[-2:]), node)
            total = total + beta * pair_similarity(nodes_s, nodes_t, shown_bhw)
        return total


def _pooled(shape: tuple[int, int, int], node: str) -> tuple[int, int, int]:
    _, channels, height, width = pool_nodes(torch.empty(1, *shape, device="meta"), node).shape
    return channels, height, width
