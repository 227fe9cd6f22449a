"""Device memory: signs of a full device, the share of other processes, and the errors of a trial that needs more."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from kdsearch.distill.base import Term

OTHERS_BYTES = 2**31
"""Memory of others on a device below which a process counts as alone: the context and the libraries of this process
take up to about 1 GB beside what torch has reserved, and look like a small neighbour."""

_FULL = ("out of memory", "ALLOC_FAILED")


class TrialError(RuntimeError):
    """The configuration is at fault: the trial fails in the same way on any machine. The message names the cause."""


class DoesNotFitError(TrialError):
    """The trial needs more device memory than it got, even at half the micro-batch.

    `others` are the bytes that other processes hold on the device: with none, this configuration alone does not fit.
    """

    def __init__(self, message: str, others: int = 0) -> None:
        super().__init__(message)
        self.others = others


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device is full: torch's own error, or that of a library that allocates beside it."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    about_device = any(name in str(error) for name in ("CUDA", "CUBLAS", "CUDNN", "NCCL", "HIP"))
    return isinstance(error, RuntimeError) and about_device and any(text in str(error) for text in _FULL)


@contextmanager
def within_memory(what: str, device: torch.device) -> Iterator[None]:
    """Turn a full device into `DoesNotFitError`, which names `what` needed the memory."""
    others = -1
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        others = bytes_of_others(device)
    # Outside the handler: the error's traceback would keep alive what did not fit.
    if others >= 0:
        raise DoesNotFitError(f"out of device memory while {what}{held_by(others)}", others)


def held_by(others: int) -> str:
    """A part of a sentence about the memory of other processes; empty where there is none."""
    return f", of which other processes hold {others / 1e9:.1f} GB" if others else ""


def bytes_of_others(device: torch.device) -> int:
    """Bytes of the device's memory that other processes hold; 0 where that is below `OTHERS_BYTES`, and on a CPU."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    return others if others > OTHERS_BYTES else 0


def release(device: torch.device) -> None:
    """Give memory that nothing refers to any more back to the device; graphs may lie in reference cycles."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def estimated_bytes(terms: Mapping[str, Term], batch: int) -> dict[str, int]:
    """The memory of each term that states it, see `Term.estimate_bytes`, for `batch` images."""
    stated = {name: term.estimate_bytes(batch) for name, term in terms.items()}
    return {name: nbytes for name, nbytes in stated.items() if nbytes is not None}
