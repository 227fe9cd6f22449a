"""A CNN branch and a transformer branch with fused logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdsearch.config.networks import TwoBranchConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.data.map_grid import resize_map
from kdsearch.models.network import Network
from kdsearch.models.networks.smp import SmpNetwork
from kdsearch.models.seg_output import SegOutput


class TwoBranch(Network):
    """The teacher of spatial-temporal consistency distillation (Wang et al., 2022). A reconstruction.

    `logits` are the branches' logits, fused at the coarser one's size:

    - `mean_prob`: log of the mean of both branches' probabilities;
    - `gate`: `a z_c + (1 - a) z_t`, with `a` the sigmoid of a 1x1 convolution of both;
    - `max_conf`: at each pixel the branch of lower entropy.

    Taps are those and the logits of each branch, with the prefix `cnn.` or `transformer.`, the CNN's also without one,
    and `gate` `[B, 1, h, w]`. The branches' relations to the student are separate targets and are never concatenated.
    `fuse` may be changed at any time: all three fusions share their weights.
    """

    def __init__(self, config: TwoBranchConfig, info: DatasetInfo) -> None:
        super().__init__()
        self.fuse = config.fuse
        self.cnn = SmpNetwork(config.cnn, info)
        self.transformer = SmpNetwork(config.transformer, info)
        self.gate = nn.Conv2d(2 * info.num_classes, 1, 1)
        self.size_divisor = math.lcm(self.cnn.size_divisor, self.transformer.size_divisor)

    def encoders(self) -> list[nn.Module]:
        return [*self.cnn.encoders(), *self.transformer.encoders()]

    def forward(self, image_bchw: Tensor) -> SegOutput:
        branches = {"cnn": self.cnn(image_bchw), "transformer": self.transformer(image_bchw)}
        taps = dict(branches["cnn"].taps)
        for name, output in branches.items():
            taps |= {f"{name}.{tap}": feat_bchw for tap, feat_bchw in output.taps.items()}
            taps[f"{name}.logits"] = output.logits
        logits_c, logits_t = at_coarser_size(branches["cnn"].logits, branches["transformer"].logits)
        # The gate does not train the branches: its gradient stops here.
        taps["gate"] = self.gate(torch.cat([logits_c, logits_t], 1).detach()).sigmoid()
        return SegOutput(self._fused(logits_c, logits_t, taps["gate"]), taps)

    def _fused(self, logits_c: Tensor, logits_t: Tensor, gate_b1hw: Tensor) -> Tensor:
        if self.fuse == "gate":
            return gated(logits_c, logits_t, gate_b1hw)
        log_c, log_t = (F.log_softmax(logits.float(), 1) for logits in (logits_c, logits_t))
        if self.fuse == "mean_prob":
            return torch.logaddexp(log_c, log_t) - math.log(2)
        entropy_c, entropy_t = (-(log.exp() * log).sum(1, keepdim=True) for log in (log_c, log_t))
        return torch.where(entropy_c <= entropy_t, logits_c, logits_t)


def at_coarser_size(logits_c: Tensor, logits_t: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the size of the one with fewer pixels, bilinear."""
    size = min(logits_c.shape[-2:], logits_t.shape[-2:], key=lambda shape: shape.numel())
    return resize_map(logits_c, size), resize_map(logits_t, size)


def gated(logits_c: Tensor, logits_t: Tensor, gate_b1hw: Tensor) -> Tensor:
    return gate_b1hw * logits_c + (1 - gate_b1hw) * logits_t
