"""The private interface of PyTorch that training uses, written for torch 2.13.

DistributedDataParallel broadcasts every buffer of rank 0 before each forward pass. The queues of some terms are equal
on all ranks without that, and large enough to slow every step, but torch has no public way to exclude a buffer.
On a torch without this interface all buffers are broadcast: slower, with the same result.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

WRITTEN_FOR = "2.13"
_IGNORE = "_set_params_and_buffers_to_ignore_for_model"

logger = logging.getLogger(__name__)


def exclude_from_broadcast(module: nn.Module, buffers: list[str]) -> None:
    """Exclude the named buffers of `module` from the broadcasts of the `DistributedDataParallel` that wraps it."""
    if not buffers:
        return
    if not hasattr(DistributedDataParallel, _IGNORE):
        _warn()
        return
    getattr(DistributedDataParallel, _IGNORE)(module, buffers)


@cache
def _warn() -> None:
    logger.warning(
        "torch %s lacks DistributedDataParallel.%s of torch %s: queues are broadcast at every step, which is slower",
        torch.__version__, _IGNORE, WRITTEN_FOR,
    )  # fmt: skip
