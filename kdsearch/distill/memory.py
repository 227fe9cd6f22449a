"""What CLFD's mode `memory` keeps: an embedding of the student and a queue of teacher pixels of each class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdsearch.distill.features import unit
from kdsearch.distill.sampling import RandomState, sample_per_class


def embedding_head(student: int, teacher: int) -> nn.Sequential:
    """1x1 - BN - ReLU - 1x1 from the student's channels to the teacher's. Convolutions have no bias (CIRKD)."""
    return nn.Sequential(
        nn.Conv2d(student, teacher, 1, bias=False),
        nn.BatchNorm2d(teacher),
        nn.ReLU(inplace=True),
        nn.Conv2d(teacher, teacher, 1, bias=False),
    )


class ClassQueue(nn.Module):
    """The last `length` teacher pixels of each class, as unit vectors; saved in the `state_dict`.

    Under DDP each rank has its own, unless buffers are broadcast: then rank 0's is everyone's.
    """

    entries_kqc: Tensor
    fill_k: Tensor
    next_k: Tensor

    def __init__(self, classes: int, length: int, channels: int) -> None:
        super().__init__()
        self.random = RandomState()
        self.register_buffer("entries_kqc", torch.zeros(classes, length, channels))
        self.register_buffer("fill_k", torch.zeros(classes, dtype=torch.long))
        self.register_buffer("next_k", torch.zeros(classes, dtype=torch.long))

    @property
    def filled_kq(self) -> Tensor:
        """Which slots hold a pixel."""
        slots_q = torch.arange(self.entries_kqc.shape[1], device=self.fill_k.device)
        return slots_q < self.fill_k[:, None]

    @torch.no_grad()
    def push(self, feat_bchw: Tensor, label_bhw: Tensor, valid_bhw: Tensor, count: int) -> None:
        """Store up to `count` random pixels of each class of each image, over the oldest entries."""
        classes, length, channels = self.entries_kqc.shape
        label_bn, valid_bn = label_bhw.flatten(1), valid_bhw.flatten(1)
        score_bn = self.random.uniform(*label_bn.shape, device=label_bn.device)
        index_bkm, taken_bkm = sample_per_class(label_bn, valid_bn, classes, count, score_bn)
        feat_bnc = feat_bchw.flatten(2).transpose(1, 2)
        picked_blc = feat_bnc.gather(1, index_bkm.flatten(1)[..., None].expand(-1, -1, channels))
        picked_kmc = picked_blc.view(*index_bkm.shape, channels).transpose(0, 1).flatten(1, 2)
        taken_km = taken_bkm.transpose(0, 1).flatten(1)

        new_k = taken_km.sum(1)
        rank_km = taken_km.cumsum(1) - 1
        keep_km = taken_km & (rank_km >= new_k[:, None] - length)  # more than fit: the last ones
        slot_km = torch.where(
            keep_km, (self.next_k[:, None] + rank_km) % length, length
        )  # slot `length` is thrown away
        room_kqc = torch.cat([self.entries_kqc, self.entries_kqc[:, :1]], 1)
        source_kmc = unit(picked_kmc).to(room_kqc.dtype)
        room_kqc.scatter_(1, slot_km[..., None].expand(-1, -1, channels), source_kmc)
        self.entries_kqc.copy_(room_kqc[:, :length])
        self.fill_k.copy_((self.fill_k + new_k).clamp_max(length))
        self.next_k.copy_((self.next_k + new_k) % length)
