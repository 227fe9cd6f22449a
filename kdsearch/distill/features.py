"""Making the maps of two networks comparable."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def match_size(student_bchw: Tensor, teacher_bchw: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the size of the one with more pixels: the coarser is up-sampled, bilinear, align_corners=False."""
    size_s, size_t = student_bchw.shape[-2:], teacher_bchw.shape[-2:]
    if size_s == size_t:
        return student_bchw, teacher_bchw
    if size_s.numel() > size_t.numel():
        return student_bchw, F.interpolate(teacher_bchw, size=size_s, mode="bilinear", align_corners=False)
    return F.interpolate(student_bchw, size=size_t, mode="bilinear", align_corners=False), teacher_bchw


def channel_adapter(student: int, teacher: int, bias: bool = False) -> nn.Module:
    """A 1x1 convolution from the student's channels to the teacher's; nothing when they are equal."""
    return nn.Identity() if student == teacher else nn.Conv2d(student, teacher, 1, bias=bias)


def unit(tensor: Tensor, dim: int = -1, eps: float = 1e-8) -> Tensor:
    """`tensor` with L2 norm 1 along `dim`.

    A vector shorter than `eps` has no direction: it becomes 0 and gets no gradient (`F.normalize` would hand it one
    of 1/eps, and features after a ReLU do vanish). One with a NaN stays NaN, to be seen.
    """
    norm = torch.linalg.vector_norm(tensor, dim=dim, keepdim=True)
    vanishes = norm <= eps
    return torch.where(vanishes, 0.0, tensor / torch.where(vanishes, 1.0, norm))


def pixels(map_bchw: Tensor) -> Tensor:
    """All pixels of the batch as rows: `[B, C, h, w]` to `[B*h*w, C]`."""
    return map_bchw.permute(0, 2, 3, 1).flatten(0, 2)
