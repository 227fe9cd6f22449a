"""The contract of a distillation term."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from kdsearch.config.trial import TermConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.models.output import SegOutput

Shapes = dict[str, tuple[int, int, int]]
"""Shape `(C, h, w)` of a network's `"logits"` and of each of its taps, at training size."""


@dataclass(frozen=True)
class Requirements:
    """What a term reads beside logits and labels: `taps` of both networks, `teacher_taps` of the teacher alone."""

    taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()
    detail_heads: bool = False
    video: bool = False


@dataclass
class FramePair:
    """A later frame of each sample: both networks' outputs on it, both images, and the flow from the first to it.

    `flow_b2hw` is in pixels of the input: `image(p)` shows what `next_image(p + flow(p))` shows. Images are normalised.
    """

    student: SegOutput
    teacher: SegOutput
    flow_b2hw: Tensor
    image_bchw: Tensor
    next_image_bchw: Tensor


class Term(nn.Module):
    """One distillation loss.

    A subclass is built from its `Config`, the shapes of both networks' outputs and the data set, and may own adapters,
    generators or queues: these train with the student, are saved with the trial, and are never exported or counted in
    FLOPs. It says in `needs` which taps it reads, and implements `loss`.

    Calling a term returns one un-weighted, mean-normalised fp32 scalar; with no valid pixel an exact 0 that has a
    graph. The call itself detaches the teacher's tensors, leaves autocast and raises half precision to fp32 (fp64
    stays fp64), so `loss` need not.

    A term that trains something against the student, such as a discriminator, builds that with `requires_grad` off, so
    that the student's optimiser and DDP pass it by, and gives it a `adversary_optimizer` and a `adversary_loss`.
    """

    name: ClassVar[str]
    reconstructed: ClassVar[bool] = False

    class Config(TermConfig):
        """Hyper-parameters, with units, ranges and source in the field descriptions."""

    def __init__(self, config: TermConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__()
        self.config = config
        self.info = info
        self.shapes_s, self.shapes_t = student, teacher

    @property
    def needs(self) -> Requirements:
        """What this term, as configured, reads."""
        return Requirements()

    def estimate_bytes(self, batch: int) -> int:
        """Peak memory of a forward and backward pass over `batch` images in fp32, at the sizes it was built for.

        Counts what is held beyond both networks' outputs, the labels and the term's own state: saved and temporary
        tensors, and the gradients of the outputs and of the term's parameters.
        """
        raise NotImplementedError

    def adversary_optimizer(self) -> torch.optim.Optimizer | None:
        """The optimiser of what trains against the student; called once, after the term was moved to its device."""
        return None

    def adversary_loss(self) -> Tensor:
        """The loss of the second optimiser's parameters, on the detached tensors of the last `forward`."""
        raise NotImplementedError

    def forward(
        self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None = None
    ) -> Tensor:
        needs = self.needs
        taps_s, taps_t = needs.taps, needs.taps + needs.teacher_taps
        with torch.autocast(student.logits.device.type, enabled=False):
            if frames is not None:
                frames = FramePair(
                    _full_precision(frames.student, taps_s),
                    _detached(_full_precision(frames.teacher, taps_t)),
                    promote(frames.flow_b2hw),
                    promote(frames.image_bchw),
                    promote(frames.next_image_bchw),
                )
            return self.loss(
                _full_precision(student, taps_s), _detached(_full_precision(teacher, taps_t)), target_bhw, frames
            )

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        """The term's value. Outputs hold the taps of `needs` only, in fp32 or fp64; the teacher's have no graph."""
        raise NotImplementedError


def promote(tensor: Tensor) -> Tensor:
    """fp16 and bf16 as fp32; every other type as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _full_precision(output: SegOutput, taps: Iterable[str]) -> SegOutput:
    return SegOutput(promote(output.logits), {name: promote(output.taps[name]) for name in taps})


def _detached(output: SegOutput) -> SegOutput:
    return SegOutput(output.logits.detach(), {name: tap.detach() for name, tap in output.taps.items()})
