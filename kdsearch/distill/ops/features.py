"""Size, channels and norms of the maps of two networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdsearch.data.map_grid import resize_map
from kdsearch.distill.ops.labels import masked_mean


def match_size(student_bchw: Tensor, teacher_bchw: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the size of the one with more pixels: the coarser is up-sampled, bilinear."""
    size_s, size_t = student_bchw.shape[-2:], teacher_bchw.shape[-2:]
    size = max(size_t, size_s, key=lambda size: size.numel())
    return resize_map(student_bchw, size), resize_map(teacher_bchw, size)


def squared_error(student_bchw: Tensor, teacher_bchw: Tensor, inside_bhw: Tensor | None) -> Tensor:
    """Mean squared difference over all elements inside the image."""
    if inside_bhw is None:
        return F.mse_loss(student_bchw, teacher_bchw)
    return masked_mean((student_bchw - teacher_bchw).square().mean(1), inside_bhw)


def channel_adapter(student: int, teacher: int, bias: bool = False) -> nn.Module:
    """A 1x1 convolution from the student's channels to the teacher's; the identity if they are equal."""
    return nn.Identity() if student == teacher else nn.Conv2d(student, teacher, 1, bias=bias)


def unit(tensor: Tensor, dim: int = -1, eps: float = 1e-8) -> Tensor:
    """`tensor` with L2 norm 1 along `dim`.

    A vector shorter than `eps` has no direction: it becomes 0 without a gradient (`F.normalize` gives a gradient of
    1/eps, and features after a ReLU do vanish). A vector with a NaN stays NaN, so that the error is visible.
    """
    norm = torch.linalg.vector_norm(tensor, dim=dim, keepdim=True)
    vanishes = norm <= eps
    return torch.where(vanishes, 0.0, tensor / torch.where(vanishes, 1.0, norm))


def over_norm(values_bkhw: Tensor, feat_bchw: Tensor, eps: float = 1e-8) -> Tensor:
    """`values` over the L2 norm of each pixel's features; 0, without a gradient, where that is at most `eps`."""
    norm_b1hw = torch.linalg.vector_norm(feat_bchw, dim=1, keepdim=True)
    vanishes_b1hw = norm_b1hw <= eps
    return torch.where(vanishes_b1hw, 0.0, values_bkhw / torch.where(vanishes_b1hw, 1.0, norm_b1hw))


def pixels(map_bchw: Tensor) -> Tensor:
    """All pixels of the batch as rows: `[B, C, h, w]` to `[B*h*w, C]`."""
    return map_bchw.permute(0, 2, 3, 1).flatten(0, 2)
