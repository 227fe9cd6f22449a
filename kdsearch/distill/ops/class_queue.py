"""Memory of terms: queues of teacher features per class, and the embedding of the student."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from kdsearch.distill.ops.features import unit
from kdsearch.distill.ops.sampling import RandomState, sample_per_class


def embedding_head(student: int, teacher: int) -> nn.Sequential:
    """1x1 - BN - ReLU - 1x1 from the student's channels to the teacher's. Convolutions have no bias (CIRKD)."""
    return nn.Sequential(
        nn.Conv2d(student, teacher, 1, bias=False),
        nn.BatchNorm2d(teacher),
        nn.ReLU(inplace=True),
        nn.Conv2d(teacher, teacher, 1, bias=False),
    )


class ClassQueue(nn.Module):
    """The last `length` teacher features of each class, as unit vectors; saved in the `state_dict`.

    Under DDP each rank has its own queue, unless buffers are broadcast from rank 0. With `all_ranks` every rank stores
    the features of all ranks, so the queues stay equal; all ranks must then push equally often.
    """

    entries_kqc: Tensor
    fill_k: Tensor
    next_k: Tensor

    def __init__(self, classes: int, length: int, channels: int, all_ranks: bool = False) -> None:
        super().__init__()
        self.random = RandomState()
        self.all_ranks = all_ranks
        self.register_buffer("entries_kqc", torch.zeros(classes, length, channels))
        self.register_buffer("fill_k", torch.zeros(classes, dtype=torch.long))
        self.register_buffer("next_k", torch.zeros(classes, dtype=torch.long))

    @property
    def filled_kq(self) -> Tensor:
        """Mask of the slots that hold a feature, `[K, length]`."""
        slots_q = torch.arange(self.entries_kqc.shape[1], device=self.fill_k.device)
        return slots_q < self.fill_k[:, None]

    def push(self, feat_bchw: Tensor, label_bhw: Tensor, valid_bhw: Tensor, count: int) -> None:
        """Store up to `count` random pixels of each class of each image, over the oldest entries."""
        classes, _, channels = self.entries_kqc.shape
        label_bn, valid_bn = label_bhw.flatten(1), valid_bhw.flatten(1)
        score_bn = self.random.of_images(*label_bn.shape, device=label_bn.device)
        index_bkm, taken_bkm = sample_per_class(label_bn, valid_bn, classes, count, score_bn)
        feat_bnc = feat_bchw.flatten(2).transpose(1, 2)
        picked_blc = feat_bnc.gather(1, index_bkm.flatten(1)[..., None].expand(-1, -1, channels))
        picked_kmc = picked_blc.view(*index_bkm.shape, channels).transpose(0, 1).flatten(1, 2)
        self.store(picked_kmc, taken_bkm.transpose(0, 1).flatten(1))

    @torch.no_grad()
    def store(self, feat_kmc: Tensor, taken_km: Tensor) -> None:
        """Store the features of each class that are `taken`, in their order, over the oldest entries."""
        if self.all_ranks:
            feat_kmc, taken_km = _of_all_ranks(feat_kmc), _of_all_ranks(taken_km.byte()).bool()
        channels, length = feat_kmc.shape[2], self.entries_kqc.shape[1]
        new_k = taken_km.sum(1)
        rank_km = taken_km.cumsum(1) - 1
        keep_km = taken_km & (rank_km >= new_k[:, None] - length)  # if more than fit, the last ones
        kept_k = keep_km.sum(1)
        # Each row has its own slot, rows to keep first; the other rows write back the content of their slot.
        order_kr = (~keep_km).byte().argsort(dim=1, stable=True)[:, :length]
        rank_r = torch.arange(order_kr.shape[1], device=order_kr.device)
        slot_kr = ((self.next_k + new_k - kept_k)[:, None] + rank_r) % length
        slot_krc = slot_kr[..., None].expand(-1, -1, channels)
        source_krc = unit(feat_kmc.gather(1, order_kr[..., None].expand(-1, -1, channels)))
        old_krc = self.entries_kqc.gather(1, slot_krc)
        kept_kr1 = (rank_r < kept_k[:, None])[..., None]
        self.entries_kqc.scatter_(1, slot_krc, torch.where(kept_kr1, source_krc.to(old_krc.dtype), old_krc))
        self.fill_k.copy_((self.fill_k + new_k).clamp_max(length))
        self.next_k.copy_((self.next_k + new_k) % length)

    @torch.no_grad()
    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Random entries `[K, n, C]` of each class, from its filled slots, and a mask of classes with entries `[K]`.

        n is `count`, or the queue's length if that is less. The slots are distinct, and the same for all
        classes with full queues; a class with fewer entries repeats some. Later pushes do not change the returned copy.
        """
        length, channels = self.entries_kqc.shape[1:]
        place_n = self.random.uniform(length, device=self.fill_k.device).argsort()[:count]
        slot_kn = place_n * self.fill_k[:, None] // length
        return self.entries_kqc.gather(1, slot_kn[..., None].expand(-1, -1, channels)), self.fill_k > 0


def _of_all_ranks(tensor_km: Tensor) -> Tensor:
    """The tensors of all ranks, joined along dimension 1."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return tensor_km
    parts = [torch.empty_like(tensor_km) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, tensor_km.contiguous())
    return torch.cat(parts, 1)
