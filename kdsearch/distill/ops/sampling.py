"""Random choices of terms, with a state that is saved, so that a resumed trial makes the same choices."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from kdsearch.distill.ops.labels import one_hot


class RandomState(nn.Module):
    """A generator saved in the `state_dict`, as a byte tensor: `torch.load(weights_only=True)` reads it.

    It is seeded from torch's global generator when built, so the trial's seed decides it. It draws on the CPU and
    moves the result, so every device has the same numbers. All ranks of a trial draw equally many numbers: their states
    stay equal, and the state of rank 0, which is saved, is valid for all.
    """

    def __init__(self) -> None:
        super().__init__()
        self._generator = torch.Generator()
        self._generator.manual_seed(int(torch.randint(2**62, (), device="cpu").item()))

    def uniform(self, *shape: int, device: torch.device) -> Tensor:
        """Numbers from [0, 1), fp32: the same on all ranks of a trial."""
        return torch.rand(shape, generator=self._generator).to(device, non_blocking=True)

    def of_images(self, batch: int, *shape: int, device: torch.device) -> Tensor:
        """Numbers `[batch, *shape]` from [0, 1) for the images of this rank; all ranks have batches of one size.

        Any number of ranks draws the same for the same global batch.
        """
        ranks, rank = 1, 0
        if distributed.is_initialized():
            ranks, rank = distributed.get_world_size(), distributed.get_rank()
        drawn = torch.rand(ranks * batch, *shape, generator=self._generator)
        return drawn[rank * batch : (rank + 1) * batch].to(device, non_blocking=True)

    def get_extra_state(self) -> Tensor:
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self._generator.set_state(state.cpu())


def sample_per_class(
    label_bn: Tensor, valid_bn: Tensor, num_classes: int, count: int, score_bn: Tensor
) -> tuple[Tensor, Tensor]:
    """Up to `count` pixels of each class in each row, those with the highest `score_bn` (not negative).

    Returns `index_bkm` into a row's pixels and `taken_bkm`: false where the class has fewer pixels; the index beside
    it means nothing. m is `count`, or the number of pixels if that is less.
    """
    member_bkn = one_hot(label_bn, valid_bn, num_classes).transpose(1, 2)
    score_bkn = torch.where(member_bkn, score_bn[:, None], -1.0)
    best = score_bkn.topk(min(count, label_bn.shape[1]), dim=2)
    return best.indices, best.values >= 0
