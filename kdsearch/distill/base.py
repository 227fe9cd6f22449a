"""The contract of a distillation term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from kdsearch.config.trial import TermConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.models.output import SegOutput

Shapes = dict[str, tuple[int, int, int]]
"""Shape `(C, h, w)` of a network's `"logits"` and of each of its taps, at training size."""


@dataclass(frozen=True)
class Needs:
    """What a term reads beside logits and labels."""

    taps: tuple[str, ...] = ()
    detail_heads: bool = False
    video: bool = False


@dataclass
class FramePair:
    """A later frame of each sample: both networks' outputs on it, and the flow from the first frame to it.

    `flow_b2hw` is in pixels of the input: `image(p)` shows what `next(p + flow(p))` shows.
    """

    student: SegOutput
    teacher: SegOutput
    flow_b2hw: Tensor


class Term(nn.Module):
    """One distillation loss.

    A subclass is built from its `Config`, the shapes of both networks' outputs and the data set, and may own adapters,
    generators or queues: these train with the student, are saved with the trial, and are never exported or counted in
    FLOPs. `forward` returns one un-weighted, mean-normalised fp32 scalar; with no valid pixel it returns an exact 0
    that has a graph. Teacher tensors are detached by the term. Losses run in fp32 whatever the autocast state.
    """

    name: ClassVar[str]
    reconstructed: ClassVar[bool] = False

    class Config(TermConfig):
        """Hyper-parameters, with units, ranges and source in the field descriptions."""

    def __init__(self, config: TermConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__()
        self.config = config
        self.info = info

    @property
    def needs(self) -> Needs:
        """What this term, as configured, reads."""
        return Needs()

    def forward(
        self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None = None
    ) -> Tensor:
        raise NotImplementedError
