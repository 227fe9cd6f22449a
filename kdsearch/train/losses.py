"""Supervised losses of a student or a teacher: the task, and details for networks with heads for them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdsearch.config.training import TrainConfig
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.map_grid import resize_map
from kdsearch.data.store.store import Split
from kdsearch.distill.base import Shapes
from kdsearch.errors import UserError
from kdsearch.models.networks.two_branch import at_coarser_size, gated
from kdsearch.models.seg_output import SegOutput
from kdsearch.train.detail_labels import detail_labels

FREQUENCY_SAMPLE = 256
"""Label maps from which the frequencies of boundary and foreground pixels are estimated."""


class SupervisedLoss(nn.Module):
    """Cross-entropy of the logits, up-sampled to the label, and of a network's other supervised outputs.

    `L = CE_w(semantic) + detail_weight * (sum_s CE_w(boundary_s) + sum_s CE_w(binary_s))` (CLNet; unit weights as in
    its sibling's trainer). Class weights `w` are 1, or ENet's `1/ln(1.02 + frequency)` from the training labels.

    `aux_weight` adds the cross-entropy of an FCN head on tap `c3`. The head belongs to this module: it is trained and
    never exported. Each branch of a two-branch network has its own cross-entropy, and so has the gate between them,
    whatever the fusion.

    `shapes` are those of the network's taps. `UserError` when it has no tap for the auxiliary head.
    """

    def __init__(self, config: TrainConfig, split: Split, shapes: Shapes) -> None:
        super().__init__()
        self.config = config
        self.has_details = "bound1" in shapes and config.detail_weight > 0
        self.aux_head = _aux_head(shapes) if config.aux_weight else None
        weighted = config.class_weights == "enet"
        self.class_weight_k: Tensor | None
        self.binary_weight_2: Tensor | None
        self.boundary_weight_2: Tensor | None
        self.register_buffer("class_weight_k", _enet(torch.tensor(split.class_counts)) if weighted else None)
        binary, boundary = _detail_weights(split, config.edge_width) if weighted and self.has_details else (None, None)
        self.register_buffer("binary_weight_2", binary)
        self.register_buffer("boundary_weight_2", boundary)

    def forward(self, output: SegOutput, target_bhw: Tensor, norms_3: Tensor | None = None) -> Tensor:
        """The loss of a batch, or of a part of one, with this part's share of the whole's `norms` as `norms_3`."""
        details = self._details(target_bhw)
        norm, binary_norm, boundary_norm = self._norms(target_bhw, details) if norms_3 is None else norms_3
        logits = [_cross_entropy(each, target_bhw, self.class_weight_k, norm) for each in _supervised(output)]
        loss = torch.stack(logits).sum()
        if self.aux_head is not None:
            aux = _cross_entropy(self.aux_head(output.taps["c3"]), target_bhw, self.class_weight_k, norm)
            loss = loss + self.config.aux_weight * aux
        if details is not None:
            binary, boundary = details
            for name, tap in output.taps.items():
                if name.startswith("bound"):
                    bound = _cross_entropy(tap, boundary, self.boundary_weight_2, boundary_norm)
                    loss = loss + self.config.detail_weight * bound
                elif name.startswith("bin"):
                    region = _cross_entropy(tap, binary, self.binary_weight_2, binary_norm)
                    loss = loss + self.config.detail_weight * region
        return loss

    def norms(self, target_bhw: Tensor) -> Tensor:
        """The divisors `[3]` of the semantic, binary and boundary cross-entropies: sums of weights over valid pixels.

        With the divisors of the whole, the losses of a batch's parts add up to that of the batch, although parts differ
        in their number of ignored pixels.
        """
        return torch.stack(self._norms(target_bhw, self._details(target_bhw)))

    def _details(self, target_bhw: Tensor) -> tuple[Tensor, Tensor] | None:
        return detail_labels(target_bhw, self.config.edge_width) if self.has_details else None

    def _norms(self, target_bhw: Tensor, details: tuple[Tensor, Tensor] | None) -> list[Tensor]:
        binary, boundary = details or (target_bhw, target_bhw)
        return [
            _norm(target_bhw, self.class_weight_k),
            _norm(binary, self.binary_weight_2 if details else None),
            _norm(boundary, self.boundary_weight_2 if details else None),
        ]


def _supervised(output: SegOutput) -> list[Tensor]:
    """All logits that are trained on the label."""
    if "gate" not in output.taps:
        return [output.logits]
    branches = [output.taps["cnn.logits"], output.taps["transformer.logits"]]
    logits_c, logits_t = at_coarser_size(branches[0].detach(), branches[1].detach())
    return [*branches, gated(logits_c, logits_t, output.taps["gate"])]


def _aux_head(shapes: Shapes) -> nn.Module:
    """FCN head: 3x3 convolution to a quarter of the channels, BN, ReLU, dropout 0.1, 1x1 convolution to the classes."""
    if "c3" not in shapes:
        raise UserError(f"train.aux_weight needs a tap c3, the network has {', '.join(shapes)}; set aux_weight to 0.")
    channels = shapes["c3"][0]
    middle = max(channels // 4, 1)
    return nn.Sequential(
        nn.Conv2d(channels, middle, 3, padding=1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Conv2d(middle, shapes["logits"][0], 1),
    )


def _cross_entropy(logits_bkhw: Tensor, target_bhw: Tensor, weight_k: Tensor | None, norm: Tensor) -> Tensor:
    """Sum over valid pixels, divided by `norm`; without valid pixels an exact 0 that has a graph."""
    logits_bkhw = resize_map(logits_bkhw.float(), target_bhw.shape[-2:])
    total = F.cross_entropy(logits_bkhw, target_bhw, weight_k, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / norm.clamp_min(1e-12)


def _norm(target_bhw: Tensor, weight_k: Tensor | None) -> Tensor:
    """The sum of the weights of all valid pixels."""
    valid = target_bhw != IGNORE_INDEX
    if weight_k is None:
        return valid.sum().float()
    return torch.where(valid, weight_k[torch.where(valid, target_bhw, 0)], 0.0).sum()


def _enet(counts_k: Tensor) -> Tensor:
    frequency = counts_k.double() / counts_k.sum().clamp_min(1)
    return (1.0 / torch.log(1.02 + frequency)).float()


def _detail_weights(split: Split, edge_width: int) -> tuple[Tensor, Tensor]:
    """ENet weights `[2]` of the binary and the boundary labels, from evenly spaced training labels."""
    step = max(1, len(split) // FREQUENCY_SAMPLE)
    labels_bhw = torch.from_numpy(split.labels[::step].astype("int64"))
    weights = []
    for label_bhw in detail_labels(labels_bhw, edge_width):
        weights.append(_enet(torch.bincount(label_bhw[label_bhw != IGNORE_INDEX], minlength=2)))
    return weights[0], weights[1]
