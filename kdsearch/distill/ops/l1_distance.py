"""L1 distances between all pairs of two sets of vectors, and their gradient, exact and without L x L x d memory.

`torch.cdist(p=1)` is the reference. On the CPU a compiled loop is several times faster at the usual
sizes; the gradient needs only the pairs with a non-zero weight, which are few after a sharp softmax.
Letters: p problems, i and j vectors of each, d channels.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

COMPILE_FROM = 2**24
"""Absolute differences per call above which compilation pays; below, `cdist` takes milliseconds."""
GATHERED = 2**18
"""Numbers in one temporary of the gradient's sparse form."""
SPARSE_UP_TO = 1 / 16
"""Share of non-zero weights up to which the sparse form of the gradient is faster."""


def l1_distances(left_pid: Tensor, right_pjd: Tensor) -> Tensor:
    """`sum over d of |left - right|` for all pairs, `[p, i, j]`. Has no graph."""
    with torch.no_grad():
        differences = left_pid.numel() * right_pjd.shape[1]
        if left_pid.device.type == "cpu" and differences >= COMPILE_FROM:
            return _Compiled.distances(left_pid, right_pjd)
        return torch.cdist(left_pid, right_pjd, p=1)


def l1_gradient(weight_pij: Tensor, left_pid: Tensor, right_pjd: Tensor) -> Tensor:
    """`sum over j of weight * sign(left - right)`, `[p, i, d]`: the gradient of weighted distances at `left`."""
    with torch.no_grad():
        chosen_n3 = weight_pij.nonzero()
        if len(chosen_n3) <= SPARSE_UP_TO * weight_pij.numel():
            return _sparse_gradient(weight_pij, chosen_n3, left_pid, right_pjd)
    left_pid = left_pid.detach().requires_grad_()
    with torch.enable_grad():
        distance_pij = torch.cdist(left_pid, right_pjd.detach(), p=1)
    return torch.autograd.grad(distance_pij, left_pid, weight_pij)[0]


def _sparse_gradient(weight_pij: Tensor, chosen_n3: Tensor, left_pid: Tensor, right_pjd: Tensor) -> Tensor:
    _, rows, channels = left_pid.shape
    grad_pid = torch.zeros_like(left_pid, memory_format=torch.contiguous_format)
    flat_nd, left_nd, right_nd = grad_pid.view(-1, channels), left_pid.flatten(0, 1), right_pjd.flatten(0, 1)
    for part_n3 in torch.split(chosen_n3, max(GATHERED // channels, 1)):
        problem_n, i_n, j_n = part_n3.unbind(1)
        left_n, right_n = problem_n * rows + i_n, problem_n * right_pjd.shape[1] + j_n
        sign_nd = left_nd[left_n].sub_(right_nd[right_n]).sign_()
        flat_nd.index_add_(0, left_n, sign_nd.mul_(weight_pij[problem_n, i_n, j_n][:, None]))
    return grad_pid


def _by_broadcasting(left_pid: Tensor, right_pjd: Tensor) -> Tensor:
    """For compilation only: eager execution would hold p x i x j x d numbers, the compiled loop holds none."""
    return (left_pid[:, :, None] - right_pjd[:, None]).abs().sum(-1)


class _Compiled:
    """The compiled loop of this process, or `cdist` after compilation has failed."""

    function: Callable[[Tensor, Tensor], Tensor] | None = None

    @classmethod
    def distances(cls, left_pid: Tensor, right_pjd: Tensor) -> Tensor:
        if cls.function is None:
            found = shutil.which(os.environ.get("CXX", "g++"))
            cls.function = torch.compile(_by_broadcasting, dynamic=True, fullgraph=True) if found else _cdist
        try:
            return cls.function(left_pid, right_pjd)
        except RuntimeError as error:  # errors of the compiler are of this type, too
            if cls.function is _cdist:
                raise
            cls.function = _cdist
            warnings.warn(
                f"L1 distances cannot be compiled here, torch.cdist takes over: {str(error).splitlines()[0]}",
                stacklevel=2,
            )
            return _cdist(left_pid, right_pjd)


def _cdist(left_pid: Tensor, right_pjd: Tensor) -> Tensor:
    return torch.cdist(left_pid, right_pjd, p=1)
