"""Pair-wise similarities between the nodes of a map, and their difference between two networks."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from kdsearch.distill.ops.features import match_size, unit
from kdsearch.distill.taps import FLOAT
from kdsearch.models.seg_output import SegOutput

Shape = tuple[int, int, int]

_NODE = re.compile(r"(stride|grid)([1-9]\d*)|half")


def pool_nodes(feat_bchw: Tensor, node: str) -> Tensor:
    """Max-pooled nodes of a map, `[B, C, h', w']`.

    `node` is `none` (every pixel), `stride{s}` (windows of s x s, cut off at the border), `half` (windows of half the
    map a side, rounded down and cut off at the border: SKD's, 2 x 2 nodes on even maps; on 65 x 65 pixels 3 x 3, from
    windows of 32, 32 and 1) or `grid{g}` (g x g windows over the whole map). Raises `ValueError` for anything else.
    """
    if node == "none":
        return feat_bchw
    match = _NODE.fullmatch(node)
    if match is None:
        raise ValueError(f"There is no node pooling '{node}': none, stride{{s}}, half or grid{{g}}.")
    if match[1] == "grid":
        return F.adaptive_max_pool2d(feat_bchw, int(match[2]))
    window = int(match[2]) if match[1] else tuple(max(side // 2, 1) for side in feat_bchw.shape[-2:])
    return F.max_pool2d(feat_bchw, window, ceil_mode=True)


def shown_nodes(output: SegOutput, sizes: Iterable[tuple[int, ...]], node: str) -> Tensor | None:
    """The nodes (bool `[B, h', w']`) whose window shows a part of the image, of the finest of these maps; None: all."""
    if output.inside_bhw is None:
        return None
    masks = [output.inside_at(size) for size in sizes]
    pooled = [pool_nodes(mask_bhw[:, None].float(), node)[:, 0] > 0 for mask_bhw in masks if mask_bhw is not None]
    return max(pooled, key=lambda nodes_bhw: nodes_bhw.shape[1] * nodes_bhw.shape[2])


def pair_similarity(nodes_s_bchw: Tensor, nodes_t_bchw: Tensor, shown_bhw: Tensor | None = None) -> Tensor:
    """`mean over images of ||G_S - G_T||_F^2 / n^2`, a scalar: G are the cosines between an image's n nodes.

    Nodes that are not `shown` do not count. Exact, channels may differ, and a coarser grid of nodes is first
    up-sampled to the other's. With far more nodes than channels the n x n matrices are never formed: the norm is
    expanded into C x C products, a difference of large numbers that is computed in fp64. It holds O(B C (n + C)), the
    direct form O(B n (n + C)).
    """
    nodes_s_bchw, nodes_t_bchw = match_size(nodes_s_bchw, nodes_t_bchw)
    return similarity_error(nodes_s_bchw, nodes_s_bchw, nodes_t_bchw, nodes_t_bchw, shown_bhw, shown_bhw)


def similarity_error(
    rows_s: Tensor,
    columns_s: Tensor,
    rows_t: Tensor,
    columns_t: Tensor,
    shown_rows: Tensor | None,
    shown_columns: Tensor | None,
) -> Tensor:
    """`mean over images of ||A_S - A_T||_F^2 / pairs`: A are a network's cosines between its `rows` and its `columns`.

    The maps of nodes `[B, C, h', w']` are alike but for their channels. Pairs count of which both are `shown`.
    """
    nodes, dtype = rows_s.shape[2] * rows_s.shape[3], rows_s.dtype
    direct = is_direct(nodes, rows_s.shape[1], rows_t.shape[1])

    def units(nodes_bchw: Tensor, shown_bhw: Tensor | None) -> Tensor:
        unit_bcn = unit(nodes_bchw.flatten(2), 1)
        if shown_bhw is not None:  # 0 adds nothing to any product
            unit_bcn = torch.where(shown_bhw.flatten(1)[:, None], unit_bcn, 0.0)
        return unit_bcn if direct else unit_bcn.double()

    a_s, a_t = units(rows_s, shown_rows), units(rows_t, shown_rows)
    b_s = a_s if columns_s is rows_s else units(columns_s, shown_columns)
    b_t = a_t if columns_t is rows_t else units(columns_t, shown_columns)
    pairs_b = _count(shown_rows, nodes) * _count(shown_columns, nodes)
    if direct:
        total_b = (a_s.transpose(1, 2) @ b_s - a_t.transpose(1, 2) @ b_t).square().sum((1, 2))
        return (total_b / pairs_b).mean()
    total_b = _product(a_s, a_s, b_s, b_s) + _product(a_t, a_t, b_t, b_t) - 2 * _product(a_s, a_t, b_s, b_t)
    return (total_b.clamp_min(0) / pairs_b).mean().to(dtype)


def _count(shown_bhw: Tensor | None, nodes: int) -> Tensor | int:
    return nodes if shown_bhw is None else shown_bhw.flatten(1).sum(1).clamp_min(1)


def is_direct(nodes: int, channels_s: int, channels_t: int) -> bool:
    """Whether the n x n matrices cost less time than the expansion in fp64."""
    return nodes <= 2 * max(channels_s, channels_t)


def _product(a_bcn: Tensor, b_bcn: Tensor, c_bcn: Tensor, d_bcn: Tensor) -> Tensor:
    """Sum over all entries of `a b^T * c d^T`, for each image."""
    first_bcc = a_bcn @ b_bcn.transpose(1, 2)
    second_bcc = first_bcc if a_bcn is c_bcn and b_bcn is d_bcn else c_bcn @ d_bcn.transpose(1, 2)
    return (first_bcc * second_bcc).sum((1, 2))


def pair_similarity_bytes(student: Shape, teacher: Shape, node: str, batch: int) -> int:
    """Peak memory of `pool_nodes` and `pair_similarity` with their backward pass, from both maps' `(C, h, w)`."""
    (channels_s, nodes_s), (channels_t, nodes_t) = ((shape[0], _nodes_of(shape, node)) for shape in (student, teacher))
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


def _nodes_of(shape: Shape, node: str) -> int:
    return pool_nodes(torch.empty(1, 1, *shape[1:], device="meta"), node).numel()
