"""The contract of a distillation term."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from kdsearch.config.terms.base import TermConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.view import without_outside
from kdsearch.models.seg_output import SegOutput

Shapes = dict[str, tuple[int, int, int]]
"""Shape `(C, h, w)` of a network's `"logits"` and of each of its taps, at training size."""


@dataclass(frozen=True)
class Requirements:
    """Inputs of a term beside logits and labels: `taps` of both networks, `teacher_taps` of the teacher alone."""

    taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()
    detail_heads: bool = False
    video: bool = False


@dataclass
class FramePair:
    """A later frame of each sample: both networks' outputs on it, both images, and the flow from the first to it.

    `flow_b2hw` is in pixels of the input: `image(p)` shows the point that `next_image(p + flow(p))` shows. Images are
    normalised.
    """

    student: SegOutput
    teacher: SegOutput
    flow_b2hw: Tensor
    image_bchw: Tensor
    next_image_bchw: Tensor


class Term(nn.Module):
    """Base of distillation losses.

    Contract
    --------

    A term is built from its settings, the shapes of both networks' outputs and the data set. A subclass sets `name`
    and `Config`, states in `requirements` which taps, detail heads or later frames it reads, and implements `loss` and
    `estimate_bytes`. `reconstructed` marks terms whose formula is not published in full. The constructor raises
    `UserError`, with the remedy, for networks that the term cannot compare.

    Calling the term returns one un-weighted fp32 scalar, a mean over valid pixels (or over the pairs or classes of the
    method); terms that read no labels count ignored pixels, but none outside the image. `WeightedSum` multiplies it by
    the weight of the epoch. Without a valid pixel the value is an exact 0 with a graph.

    Shapes
    ------

    Names of tensors end in their dimensions: `b` images, `c` channels, `k` classes, `h` and `w` pixels, `n` pixels of
    the whole batch. `student` and `teacher` hold logits `[B, K, h, w]` and the taps of `requirements`, each at its own
    size: `ops.features.match_size` brings a pair to one size, `ops.labels.labels_at` the labels `[B, H, W]` to that
    size. Labels of 255 are ignored. `frames` is None unless `requirements.video` is set.

    Views
    -----

    A training view may reach beyond its image. `inside_at` of an output gives the cells of a map that show the image
    (None: all of them); labels outside are 255. A term without labels leaves the others out of its means. `__call__`
    gives every map the nearest value inside the image there, without a gradient, so that the networks' outputs on
    padding have no effect in any case. `estimate_bytes` leaves those copies out.

    Numerics
    --------

    `__call__` detaches the teacher's tensors, disables autocast and raises half precision to fp32 (fp64 stays fp64);
    `loss` need not. Gradients are finite everywhere, at vectors of zeros and for classes without pixels too. Shapes do
    not depend on values: masks instead of gathers, so that no step waits for the device.

    State
    -----

    Adapters, generators and queues are parameters and buffers of the term: they train with the student, are saved with
    the trial, and are never exported or counted as FLOPs. Random numbers come from `ops.sampling.RandomState`, which
    the `state_dict` holds, so a resumed trial draws the same ones. In eval mode a call changes no state.

    An adversary, such as a discriminator, is built with `requires_grad` off, so that the student's optimiser and DDP
    skip it, and has its own `adversary_optimizer` and `adversary_loss`.

    Memory
    ------

    `estimate_bytes` is within a factor of 1.5 of the peak memory of a forward and backward pass. A trial that runs out
    of memory reports it per term, and `kdsearch plan` adds it up. The docstring of a subclass gives its order.
    """

    name: ClassVar[str]
    reconstructed: ClassVar[bool] = False

    Config: TypeAlias = TermConfig
    """Settings class: the hyper-parameters, with units, ranges and source in the field descriptions."""

    def __init__(self, config: TermConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__()
        self.config = config
        self.info = info
        self.shapes_s, self.shapes_t = student, teacher

    @property
    def requirements(self) -> Requirements:
        """Inputs of this term, as configured, beside logits and labels."""
        return Requirements()

    def estimate_bytes(self, batch: int) -> int | None:
        """Peak memory of a forward and backward pass over `batch` images in fp32, at the sizes it was built for.

        Counts memory beyond both networks' outputs, the labels and the term's own state: saved and temporary tensors,
        and the gradients of the outputs and of the term's parameters. None, the default, where it is not known.
        """
        return None

    def adversary_optimizer(self) -> torch.optim.Optimizer | None:
        """Optimiser of the adversary, or None; called once, after the term was moved to its device."""
        return None

    def adversary_loss(self) -> Tensor:
        """Loss of the adversary's parameters, on the detached tensors of the last `forward`."""
        raise NotImplementedError

    def forward(
        self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None = None
    ) -> Tensor:
        required = self.requirements
        taps_s, taps_t = required.taps, required.taps + required.teacher_taps
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
        """The term's value. Outputs hold only the taps of `requirements`; those of the teacher have no graph."""
        raise NotImplementedError


def promote(tensor: Tensor) -> Tensor:
    """fp16 and bf16 as fp32; every other type unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _full_precision(output: SegOutput, taps: Iterable[str]) -> SegOutput:
    return without_outside(
        SegOutput(promote(output.logits), {name: promote(output.taps[name]) for name in taps}, output.inside_bhw)
    )


def _detached(output: SegOutput) -> SegOutput:
    taps = {name: tap.detach() for name, tap in output.taps.items()}
    return SegOutput(output.logits.detach(), taps, output.inside_bhw)
