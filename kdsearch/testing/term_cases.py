"""Cases of the conformance suite of terms: a term in one mode, with random stand-ins for both networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.distill.base import FramePair, Shapes, Term, promote
from kdsearch.distill.ops.sampling import RandomState
from kdsearch.distill.registry import term_class
from kdsearch.models.seg_output import SegOutput

CLASSES, BATCH, SIZE = 4, 2, (4, 5)
INFO = DatasetInfo("toy", tuple("abcd"), ((0, 0, 0),) * CLASSES, 3, (0.5,) * 3, (0.5,) * 3)
"""A data set of four classes and three channels."""


@dataclass(frozen=True)
class TermCase:
    """One term with one configuration.

    `term` is the class, or the name of a registered term; `config` holds settings that differ from the defaults.
    `student` and `teacher` map taps to channels; all maps have `size` pixels. With `video` the batch is twice as long:
    the samples, then the later frame of each.

    The flags below state which tests hold for the term. Write the reason beside a flag that excludes a test.
    """

    term: str | type[Term]
    config: dict[str, Any] = field(default_factory=dict)
    student: dict[str, int] = field(default_factory=dict)
    teacher: dict[str, int] = field(default_factory=dict)
    size: tuple[int, int] = SIZE
    video: bool = False
    masks_ignored: bool = True
    """Ignored pixels have no effect."""
    zero_at_equality: bool = False
    """The value is 0 where both networks agree."""
    may_be_negative: bool = False
    channel_free: bool = False
    """The order of a tap's channels has no effect, if it is the same in both networks."""
    order_free: bool = True
    """The order of the batch has no effect."""
    class_free: bool = True
    """The numbering of the classes has no effect."""
    whole_gradient: bool = True
    """The gradient is that of the value; False where the term detaches a part of the student on purpose."""
    half_rtol: float = 1e-2
    """Relative tolerance between half precision and fp32."""
    wide: int = 16
    """Factor of the taps' channels in the test of the memory estimate."""
    resumed: dict[str, Any] = field(default_factory=dict)
    """Settings that the test of the saved state changes, for a mode that draws no random numbers on maps this small."""

    def __str__(self) -> str:
        return "-".join([self.kind.name, *(f"{key}={value}" for key, value in self.config.items()), *self.student])

    @property
    def kind(self) -> type[Term]:
        """The class of the term."""
        return term_class(self.term) if isinstance(self.term, str) else self.term

    def taps(self, who: str) -> dict[str, int]:
        """Channels by tap of the `student` or the `teacher`."""
        return self.student if who == "student" else self.teacher

    def shapes(self, who: str, size: tuple[int, int] | None = None, classes: int = CLASSES, factor: int = 1) -> Shapes:
        """Shapes of a network's outputs, with `factor` times the channels in each tap."""
        size = size or self.size
        return {"logits": (classes, *size)} | {name: (c * factor, *size) for name, c in self.taps(who).items()}

    def build(self, **config: Any) -> Term:
        """The term in fp64, with further settings; two calls give the same parameters."""
        torch.manual_seed(3)
        settings = self.kind.Config(**self.config | config)
        return self.kind(settings, self.shapes("student"), self.shapes("teacher"), INFO).double()

    def output(self, who: str, seed: int, size: tuple[int, int] | None = None) -> SegOutput:
        """Random outputs of the `student` (with gradients) or the `teacher`, in fp64."""
        return random_output(self.shapes(who, size), BATCH * (1 + self.video), seed, who == "student", torch.float64)

    def labels(self, ignored: bool = True) -> Tensor:
        """Random labels `[B, h, w]`; some pixels are ignored unless `ignored` is False."""
        target_bhw = torch.randint(CLASSES, (BATCH, *self.size), generator=torch.Generator().manual_seed(5))
        if ignored:
            target_bhw[0, 0, :2] = IGNORE_INDEX
            target_bhw[1, 2, 3] = IGNORE_INDEX
        return target_bhw

    def inside(self) -> Tensor:
        """The pixels of views, and of their later frames, that show the image (bool), in both of them a part."""
        inside_bhw = torch.ones(BATCH * (1 + self.video), *self.size, dtype=torch.bool)
        inside_bhw[0, :1] = inside_bhw[0, :, 3:] = False
        inside_bhw[-1, :, :1] = False
        return inside_bhw

    def arguments(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor) -> tuple[Any, ...]:
        """Arguments of a call; for a video term the second halves of the outputs are those of the later frames."""
        if not self.video:
            return student, teacher, target_bhw
        batch, (height, width) = len(target_bhw), target_bhw.shape[-2:]
        generator = torch.Generator().manual_seed(9)
        image, later = torch.randn(2, batch, 3, height, width, generator=generator, dtype=torch.float64) / 4
        flow = torch.randn(batch, 2, height, width, generator=generator, dtype=torch.float64)
        seen = [tensor.to(promote(student.logits).dtype) for tensor in (flow, image, later)]
        (first_s, later_s), (first_t, later_t) = halves(student, batch), halves(teacher, batch)
        return first_s, first_t, target_bhw, FramePair(later_s, later_t, *seen)

    def call(self, term: Term, student: SegOutput, teacher: SegOutput, target_bhw: Tensor) -> Tensor:
        """The term's value."""
        value: Tensor = term(*self.arguments(student, teacher, target_bhw))
        return value


def random_output(shapes: Shapes, batch: int, seed: int, requires_grad: bool, dtype: torch.dtype) -> SegOutput:
    """Normally distributed logits and taps; the same for every `dtype` up to rounding."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str) -> Tensor:
        map_bchw = torch.randn(batch, *shapes[name], generator=generator, dtype=torch.float64).to(dtype)
        return map_bchw.requires_grad_(requires_grad)

    return SegOutput(draw("logits"), {name: draw(name) for name in shapes if name != "logits"})


def halves(output: SegOutput, batch: int) -> tuple[SegOutput, SegOutput]:
    """The first `batch` samples of an output, and the others."""
    return output.split(batch)


def tensors(output: SegOutput) -> list[Tensor]:
    """Logits and taps."""
    return [output.logits, *output.taps.values()]


def mapped(output: SegOutput, function: Callable[[Tensor], Tensor]) -> SegOutput:
    """A new output of `function(tensor)`, with its own leaves."""
    new = [function(tensor.detach().clone()).requires_grad_(tensor.requires_grad) for tensor in tensors(output)]
    return SegOutput(new[0], dict(zip(output.taps, new[1:], strict=True)), output.inside_bhw)


def gradients(value: Tensor, output: SegOutput) -> list[Tensor]:
    """Gradient at each tensor of `output`; zeros where the value does not depend on it."""
    return list(torch.autograd.grad(value, tensors(output), allow_unused=True, materialize_grads=True))


def random_states(term: Term) -> list[tuple[RandomState, Tensor]]:
    """The random generators of a term, each with its present state."""
    return [(module, module.get_extra_state()) for module in term.modules() if isinstance(module, RandomState)]


def restore(states: list[tuple[RandomState, Tensor]]) -> None:
    """Set the generators back to the states that `random_states` returned."""
    for module, state in states:
        module.set_extra_state(state)
