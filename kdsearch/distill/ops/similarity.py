"""Pair-wise similarities between the nodes of a map, and their difference between two networks."""

from __future__ import annotations

import math
import re

from torch import Tensor
from torch.nn import functional as F

from kdsearch.distill.ops.features import match_size, unit
from kdsearch.distill.taps import FLOAT

Shape = tuple[int, int, int]

_NODE = re.compile(r"(stride|grid)([1-9]\d*)")


def pool_nodes(feat_bchw: Tensor, node: str) -> Tensor:
    """Max-pooled nodes of a map, `[B, C, h', w']`.

    `node` is `none` (every pixel), `stride{s}` (windows of s x s, cut off at the border) or `grid{g}`
    (g x g windows over the whole map). Raises `ValueError` for anything else.
    """
    kind, size = _parse(node)
    if kind == "none":
        return feat_bchw
    if kind == "stride":
        return F.max_pool2d(feat_bchw, size, ceil_mode=True)
    return F.adaptive_max_pool2d(feat_bchw, size)


def pair_similarity(nodes_s_bchw: Tensor, nodes_t_bchw: Tensor) -> Tensor:
    """`mean over images of ||G_S - G_T||_F^2 / n^2`, a scalar: G are the cosines between an image's n nodes.

    Exact, channels may differ, and a coarser grid of nodes is first up-sampled to the other's. With far more nodes than
    channels the n x n matrices are never formed: the norm is expanded into C x C products, a difference of large
    numbers that is computed in fp64. It holds O(B C (n + C)), the direct form O(B n (n + C)).
    """
    nodes_s_bchw, nodes_t_bchw = match_size(nodes_s_bchw, nodes_t_bchw)
    unit_s, unit_t = (unit(nodes.flatten(2), 1) for nodes in (nodes_s_bchw, nodes_t_bchw))
    nodes = unit_s.shape[2]
    if is_direct(nodes, unit_s.shape[1], unit_t.shape[1]):
        return (unit_s.transpose(1, 2) @ unit_s - unit_t.transpose(1, 2) @ unit_t).square().mean()
    dtype, unit_s, unit_t = unit_s.dtype, unit_s.double(), unit_t.double()
    total_b = _square(unit_s, unit_s) + _square(unit_t, unit_t) - 2 * _square(unit_s, unit_t)
    return (total_b.clamp_min(0).mean() / nodes**2).to(dtype)


def is_direct(nodes: int, channels_s: int, channels_t: int) -> bool:
    """Whether the n x n matrices cost less time than the expansion in fp64."""
    return nodes <= 2 * max(channels_s, channels_t)


def _square(a_bcn: Tensor, b_bcn: Tensor) -> Tensor:
    """Squared norm of `a b^T`, for each image."""
    return (a_bcn @ b_bcn.transpose(1, 2)).square().sum((1, 2))


def _parse(node: str) -> tuple[str, int]:
    match = _NODE.fullmatch(node)
    if node != "none" and not match:
        raise ValueError(f"There is no node pooling '{node}': none, stride{{s}} or grid{{g}}.")
    return (match[1], int(match[2])) if match else ("none", 1)


def pair_similarity_bytes(student: Shape, teacher: Shape, node: str, batch: int) -> int:
    """Peak memory of `pool_nodes` and `pair_similarity` with their backward pass, from both maps' `(C, h, w)`."""
    (channels_s, nodes_s), (channels_t, nodes_t) = ((shape[0], _count(shape, node)) for shape in (student, teacher))
    nodes = max(nodes_s, nodes_t)
    pooled = 0 if node == "none" else 3 * channels_s * nodes_s + channels_t * nodes_t  # with the indices of the maxima
    resized = sum(c * nodes for c, n in ((channels_s, nodes_s), (channels_t, nodes_t)) if n < nodes)
    if is_direct(nodes, channels_s, channels_t):
        pairs = (channels_s + channels_t) * nodes + 4 * nodes**2
    else:
        forward = (2 * channels_s + 3 * channels_t) * nodes + 2 * channels_s**2 + 4 * channels_t**2
        pairs = max(forward, 8 * channels_s * nodes + 2 * channels_s**2)
    unpooled = channels_s * (student[1] * student[2] + 3 * nodes_s)  # the gradient of the map
    return FLOAT * batch * max(pooled + resized + pairs, unpooled)


def _count(shape: Shape, node: str) -> int:
    kind, size = _parse(node)
    return size**2 if kind == "grid" else math.ceil(shape[1] / size) * math.ceil(shape[2] / size)
