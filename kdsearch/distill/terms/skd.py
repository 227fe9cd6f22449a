"""SKD: structured knowledge distillation, its pair-wise part."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

from kdsearch.config.terms.skd import SKDPairConfig
from kdsearch.distill.base import FramePair
from kdsearch.distill.ops.similarity import pair_similarity, pair_similarity_bytes, pool_nodes, shown_nodes
from kdsearch.distill.tap_term import TapTerm
from kdsearch.models.seg_output import SegOutput


class SKDPair(TapTerm):
    """`mean over images of ||G_S - G_T||_F^2 / n^2`, G the cosines between an image's n nodes (Liu et al., CVPR 2019).

    Nodes are max-pooled places of one tap; channels of the two networks may differ. Reads no labels, so ignored pixels
    count. Zero when both networks agree. The published weight is 10 with `stride2` (CIRKD) and 0.5 to 1 with `half`
    (the SKD code, whose norm has no gradient, which changes the student's gradient along its own features only).

    Exact at any n. Peak extra memory: O(B C (h' w' + C)) when h' w' > C, else O(B h' w' (h' w' + C)).
    """

    name = "skd_pair"

    Config: TypeAlias = SKDPairConfig
    config: SKDPairConfig

    def estimate_bytes(self, batch: int) -> int:
        tap, node = self.config.tap, self.config.node
        return pair_similarity_bytes(self.shapes_s[tap], self.shapes_t[tap], node, batch)

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        tap, node = self.config.tap, self.config.node
        sizes = [output.taps[tap].shape[-2:] for output in (student, teacher)]
        nodes_s, nodes_t = (pool_nodes(output.taps[tap], node) for output in (student, teacher))
        return pair_similarity(nodes_s, nodes_t, shown_nodes(student, sizes, node))
