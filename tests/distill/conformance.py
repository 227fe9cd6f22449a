"""The suite that every distillation term passes: add a `Case` to `cases/` for each mode of a term.

Networks are stand-ins: random logits and taps. For terms that read video their batch is twice as long: the samples,
then the later frame of each, as one forward pass of a network gives them.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from benchmarks.memory import peak_extra_bytes
from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.distill.base import FramePair, Shapes, Term, promote
from kdsearch.distill.ops.sampling import RandomState
from kdsearch.distill.registry import registry
from kdsearch.models.output import SegOutput

CLASSES, BATCH, SIZE = 4, 2, (4, 5)
INFO = DatasetInfo("toy", tuple("abcd"), ((0, 0, 0),) * CLASSES, 3, (0.5,) * 3, (0.5,) * 3)


@dataclass(frozen=True)
class Case:
    """One term in one mode. Taps map a name to its channels; maps have `size` pixels.

    The flags after them say which parts of the suite hold for the term; give the reason where one does not.
    """

    term: str
    config: dict[str, Any] = field(default_factory=dict)
    student: dict[str, int] = field(default_factory=dict)
    teacher: dict[str, int] = field(default_factory=dict)
    size: tuple[int, int] = SIZE
    video: bool = False
    masks_ignored: bool = True
    zero_at_equality: bool = False
    may_be_negative: bool = False
    channel_free: bool = False  # the order of a tap's channels does not matter, if both networks change it
    order_free: bool = True  # nor does the order of the batch
    class_free: bool = True  # nor do the numbers of the classes
    whole_gradient: bool = True  # the gradient is the value's; false where a part is held fixed on purpose
    half_rtol: float = 1e-2
    wide: int = 16  # factor of the taps' channels where memory is measured

    def __str__(self) -> str:
        return "-".join([self.term, *(f"{key}={value}" for key, value in self.config.items()), *self.student])

    def taps(self, who: str) -> dict[str, int]:
        return self.student if who == "student" else self.teacher

    def shapes(self, who: str, size: tuple[int, int] | None = None, classes: int = CLASSES, factor: int = 1) -> Shapes:
        size = size or self.size
        return {"logits": (classes, *size)} | {name: (c * factor, *size) for name, c in self.taps(who).items()}

    def build(self, **config: Any) -> Term:
        term = registry()[self.term]
        torch.manual_seed(3)
        return term(term.Config(**self.config | config), self.shapes("student"), self.shapes("teacher"), INFO).double()

    def output(self, who: str, seed: int, size: tuple[int, int] | None = None) -> SegOutput:
        return random_output(self.shapes(who, size), BATCH * (1 + self.video), seed, who == "student", torch.float64)

    def labels(self, ignored: bool = True) -> Tensor:
        target = torch.randint(CLASSES, (BATCH, *self.size), generator=torch.Generator().manual_seed(5))
        if ignored:
            target[0, 0, :2] = IGNORE_INDEX
            target[1, 2, 3] = IGNORE_INDEX
        return target

    def arguments(self, student: SegOutput, teacher: SegOutput, target: Tensor) -> tuple[Any, ...]:
        """What the term is called with; a video term gets the second halves of the outputs as the later frames'."""
        if not self.video:
            return student, teacher, target
        batch, (height, width) = len(target), target.shape[-2:]
        generator = torch.Generator().manual_seed(9)
        image, later = torch.randn(2, batch, 3, height, width, generator=generator, dtype=torch.float64) / 4
        flow = torch.randn(batch, 2, height, width, generator=generator, dtype=torch.float64)
        seen = [tensor.to(promote(student.logits).dtype) for tensor in (flow, image, later)]
        (first_s, later_s), (first_t, later_t) = halves(student, batch), halves(teacher, batch)
        return first_s, first_t, target, FramePair(later_s, later_t, *seen)

    def call(self, term: Term, student: SegOutput, teacher: SegOutput, target: Tensor) -> Tensor:
        """The term's value."""
        return term(*self.arguments(student, teacher, target))


def random_output(shapes: Shapes, batch: int, seed: int, requires_grad: bool, dtype: torch.dtype) -> SegOutput:
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str) -> Tensor:
        map_bchw = torch.randn(batch, *shapes[name], generator=generator, dtype=torch.float64).to(dtype)
        return map_bchw.requires_grad_(requires_grad)

    return SegOutput(draw("logits"), {name: draw(name) for name in shapes if name != "logits"})


def halves(output: SegOutput, batch: int) -> tuple[SegOutput, SegOutput]:
    return (
        SegOutput(output.logits[:batch], {name: tap[:batch] for name, tap in output.taps.items()}),
        SegOutput(output.logits[batch:], {name: tap[batch:] for name, tap in output.taps.items()}),
    )


def tensors(output: SegOutput) -> list[Tensor]:
    return [output.logits, *output.taps.values()]


def mapped(output: SegOutput, function: Any) -> SegOutput:
    """A new student output of `function(tensor)`, with its own leaves."""
    new = [function(tensor.detach().clone()).requires_grad_(tensor.requires_grad) for tensor in tensors(output)]
    return SegOutput(new[0], dict(zip(output.taps, new[1:], strict=True)))


def gradients(value: Tensor, output: SegOutput) -> list[Tensor]:
    """Gradient at each tensor of `output`; zeros where the value does not depend on it."""
    return list(torch.autograd.grad(value, tensors(output), allow_unused=True, materialize_grads=True))


def rng_states(term: Term) -> list[tuple[RandomState, Tensor]]:
    return [(module, module.get_extra_state()) for module in term.modules() if isinstance(module, RandomState)]


def restore(states: list[tuple[RandomState, Tensor]]) -> None:
    for module, state in states:
        module.set_extra_state(state)


class TermConformance:
    """Inherit, with a fixture `case`."""

    def test_value_and_gradients(self, case: Case) -> None:  # (1)
        term, student, teacher = case.build(), case.output("student", 0), case.output("teacher", 1)
        for tensor in tensors(teacher):
            tensor.requires_grad_()
        value = case.call(term, student, teacher, case.labels())
        assert value.shape == ()
        assert value.isfinite()
        assert value > 0 or case.may_be_negative
        value.backward()
        assert all(tensor.grad is None for tensor in tensors(teacher))
        grads = [tensor.grad for tensor in tensors(student) if tensor.grad is not None]
        assert grads
        assert all(grad.isfinite().all() and grad.abs().sum() > 0 for grad in grads)
        for name, parameter in term.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name

    def test_needs_names_what_is_read(self, case: Case) -> None:
        term = case.build()
        student, teacher = case.output("student", 0), case.output("teacher", 1)
        needs = term.requirements
        for output, names in ((student, needs.taps), (teacher, needs.taps + needs.teacher_taps)):
            output.taps = {name: tap for name, tap in output.taps.items() if name in names}
        case.call(term, student, teacher, case.labels())

    def test_gradcheck(self, case: Case) -> None:  # (2)
        if not case.whole_gradient:
            pytest.skip("holds a part of the student fixed")
        term, student, teacher = case.build(), case.output("student", 0), case.output("teacher", 1)
        case.call(term, student, teacher, case.labels())  # fills queues
        term.eval()
        rngs = rng_states(term)

        def value(*inputs: Tensor) -> Tensor:
            restore(rngs)
            return case.call(
                term, SegOutput(inputs[0], dict(zip(student.taps, inputs[1:], strict=True))), teacher, case.labels()
            )

        assert gradcheck(value, tuple(tensors(student)))

    def test_all_ignored_is_zero_with_a_graph(self, case: Case) -> None:  # (3)
        if not case.masks_ignored:
            pytest.skip("counts every pixel, as its authors do")
        term, student, teacher = case.build(), case.output("student", 0), case.output("teacher", 1)
        nothing = torch.full_like(case.labels(), IGNORE_INDEX)
        for _ in range(2):
            value = case.call(term, student, teacher, nothing)
            assert value.item() == 0
            value.backward()
            assert all(p.grad is not None and not p.grad.any() for p in term.parameters() if p.requires_grad)
            assert not any(tensor.grad is not None and tensor.grad.any() for tensor in tensors(student))
            case.call(term, student, teacher, case.labels())  # again with full queues

    def test_ignored_pixels_take_no_part(self, case: Case) -> None:  # (4)
        if not case.masks_ignored:
            pytest.skip("counts every pixel, as its authors do")
        term, target = case.build(), case.labels()
        student, teacher = case.output("student", 0), case.output("teacher", 1)
        case.call(term, student, teacher, target)
        term.eval()  # batch normalisation in training sees every pixel
        rngs = rng_states(term)
        value = case.call(term, student, teacher, target)
        grads = gradients(value, student)
        ignored_b1hw = (target == IGNORE_INDEX)[:, None]
        if case.video:  # labels are the first frame's
            ignored_b1hw = torch.cat([ignored_b1hw, torch.zeros_like(ignored_b1hw)])
        other_s, other_t = (mapped(o, lambda x: x + 7 * x.sin() * ignored_b1hw) for o in (student, teacher))
        restore(rngs)
        other = case.call(term, other_s, other_t, target)
        torch.testing.assert_close(other, value, rtol=0, atol=1e-12)
        for grad, other_grad in zip(grads, gradients(other, other_s), strict=True):
            torch.testing.assert_close(grad, other_grad, rtol=0, atol=1e-12)
            assert not (grad * ignored_b1hw).any()

    def test_order_of_the_batch(self, case: Case) -> None:  # (5)
        if not case.order_free:
            pytest.skip("draws at random for each image, or reads two frames")
        self._same_after(case, lambda x: x.flip(0), lambda y: y.flip(0))

    def test_numbers_of_the_classes(self, case: Case) -> None:  # (6)
        if not case.class_free:
            pytest.skip("has a layer over classes")
        new_of_old = torch.tensor([0, 2, 3, 1])
        student, teacher = case.output("student", 0), case.output("teacher", 1)
        target = case.labels()
        moved = torch.where(target == IGNORE_INDEX, target, new_of_old[target.clamp_max(CLASSES - 1)])
        old_of_new = new_of_old.argsort()
        moved_s, moved_t = mapped(student, lambda x: x), mapped(teacher, lambda x: x)
        moved_s.logits, moved_t.logits = student.logits[:, old_of_new], teacher.logits[:, old_of_new]
        expected = case.call(case.build(), student, teacher, target)
        torch.testing.assert_close(case.call(case.build(), moved_s, moved_t, moved), expected, rtol=1e-11, atol=0)

    def test_order_of_the_channels(self, case: Case) -> None:  # (7)
        if not case.channel_free:
            pytest.skip("has a layer over channels, or reads none")
        student, teacher = case.output("student", 0), case.output("teacher", 1)
        expected = case.call(case.build(), student, teacher, case.labels())
        student.taps, teacher.taps = (
            {name: tap.flip(1) for name, tap in output.taps.items()} for output in (student, teacher)
        )
        torch.testing.assert_close(
            case.call(case.build(), student, teacher, case.labels()), expected, rtol=1e-11, atol=0
        )

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(self, case: Case, dtype: torch.dtype) -> None:  # (8)
        student, teacher = case.output("student", 0), case.output("teacher", 1)
        exact, rounded = case.build().float(), case.build().float()
        full = case.call(exact, mapped(student, Tensor.float), mapped(teacher, Tensor.float), case.labels())
        half_s, half_t = (mapped(output, lambda x: x.to(dtype)) for output in (student, teacher))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = case.call(rounded, half_s, half_t, case.labels())
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full, rtol=case.half_rtol, atol=0)
        with_fp32_math = case.call(
            case.build().float(), mapped(half_s, Tensor.float), mapped(half_t, Tensor.float), case.labels()
        )
        assert value.item() == with_fp32_math.item()

        large_s, large_t = (mapped(output, lambda x: (100 * x).to(dtype)) for output in (student, teacher))
        large = case.call(rounded, large_s, large_t, case.labels())
        assert large.isfinite()
        assert all(grad.isfinite().all() for grad in gradients(large, large_s))

    def test_state_round_trip(self, case: Case) -> None:  # (9)
        term = case.build(**({"anchors_per_class": 2} if case.config.get("mode") == "pixel_pixel" else {}))
        other = case.build(**({"anchors_per_class": 2} if case.config.get("mode") == "pixel_pixel" else {}))
        for step in range(2):
            case.call(term, case.output("student", step), case.output("teacher", step + 10), case.labels())
        file = io.BytesIO()
        torch.save(term.state_dict(), file)
        file.seek(0)
        torch.manual_seed(11)
        other.load_state_dict(torch.load(file, weights_only=True))
        for step in range(2, 4):
            results = []
            for module in (term, other):
                student = case.output("student", step)
                value = case.call(module, student, case.output("teacher", step + 10), case.labels())
                results.append([value, *gradients(value, student)])
            assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
        for key, saved in term.state_dict().items():
            assert torch.equal(saved, other.state_dict()[key]), key

    @pytest.mark.parametrize("scale", [2, 0.5])
    def test_networks_of_different_strides(self, case: Case, scale: float) -> None:  # (10)
        teacher_size = (int(case.size[0] * scale), math.ceil(case.size[1] * scale))
        student, teacher = case.output("student", 0), case.output("teacher", 1, teacher_size)
        target = case.labels().repeat_interleave(2, 1).repeat_interleave(2, 2)
        value = case.call(case.build(), student, teacher, target)
        assert value.isfinite()
        assert any(grad.any() for grad in gradients(value, student))

    def test_memory_layout(self, case: Case) -> None:  # (11)
        self._same_after(case, lambda x: x.contiguous(memory_format=torch.channels_last), lambda y: y)
        self._same_after(case, lambda x: x.transpose(2, 3).contiguous().transpose(2, 3), lambda y: y)

    def test_networks_that_agree(self, case: Case) -> None:
        if not case.zero_at_equality:
            pytest.skip("not zero at equality")
        student = case.output("student", 0)
        teacher = mapped(case.output("teacher", 1), lambda x: x)
        teacher.logits, teacher.taps = student.logits.detach(), teacher.taps | student.taps
        assert abs(case.call(case.build(), student, teacher, case.labels()).item()) < 1e-14

    def test_two_steps_before_the_backward_pass(self, case: Case) -> None:
        student, teachers = case.output("student", 0), [case.output("teacher", seed) for seed in (1, 2)]
        term, twin = case.build(), case.build()
        first, second = (case.call(term, student, teacher, case.labels()) for teacher in teachers)
        together = gradients(first + second, student)
        alone = [gradients(case.call(twin, student, teacher, case.labels()), student) for teacher in teachers]
        for grad, *parts in zip(together, *alone, strict=True):
            torch.testing.assert_close(grad, sum(parts), rtol=1e-11, atol=1e-13)

    def test_memory_estimate(self, case: Case) -> None:
        size, classes, batch = (32, 48), 19, 2
        shapes = {who: case.shapes(who, size, classes, case.wide) for who in ("student", "teacher")}
        info = DatasetInfo("toy", tuple(map(str, range(classes))), ((0, 0, 0),) * classes, 3, (0.5,) * 3, (0.5,) * 3)
        kind = registry()[case.term]
        term = kind(kind.Config(**case.config), shapes["student"], shapes["teacher"], info)
        outputs = [
            random_output(shapes[who], batch * (1 + case.video), seed, who == "student", torch.float32)
            for seed, who in enumerate(shapes)
        ]
        target = torch.randint(classes, (batch, 2 * size[0], 2 * size[1]))

        arguments = case.arguments(outputs[0], outputs[1], target)

        def step() -> None:
            term(*arguments).backward()

        step()  # first calls allocate what stays
        for parameter in (*term.parameters(), *tensors(outputs[0])):
            parameter.grad = None
        measured = peak_extra_bytes(step)
        assert measured / 1.5 < term.estimate_bytes(batch) < measured * 1.5, (measured, term.estimate_bytes(batch))

    def test_second_optimizer(self, case: Case) -> None:
        term, student, teacher = case.build(), case.output("student", 0), case.output("teacher", 1)
        optimizer = term.adversary_optimizer()
        frozen = [parameter for parameter in term.parameters() if not parameter.requires_grad]
        if optimizer is None:
            assert not frozen
            return
        own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        assert {id(parameter) for parameter in own} == {id(parameter) for parameter in frozen}
        case.call(term, student, teacher, case.labels()).backward()
        assert all(parameter.grad is None for parameter in own)
        before = [tensor.grad.clone() for tensor in tensors(student) if tensor.grad is not None]
        for parameter in own:
            parameter.requires_grad_()
        first = term.adversary_loss()
        first.backward()
        assert all(parameter.grad is not None for parameter in own)
        after = [tensor.grad for tensor in tensors(student) if tensor.grad is not None]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        optimizer.step()
        for parameter in own:
            parameter.requires_grad_(False)
        case.call(term, student, teacher, case.labels())
        assert term.adversary_loss() < first

    def _same_after(self, case: Case, change_map: Any, change_labels: Any) -> None:
        student, teacher, target = case.output("student", 0), case.output("teacher", 1), case.labels()
        value = case.call(case.build(), student, teacher, target)
        changed = mapped(student, change_map)
        other = case.call(case.build(), changed, mapped(teacher, change_map), change_labels(target))
        torch.testing.assert_close(other, value, rtol=1e-11, atol=1e-14)
        for grad, other_grad in zip(gradients(value, student), gradients(other, changed), strict=True):
            torch.testing.assert_close(other_grad, change_map(grad), rtol=1e-9, atol=1e-13)
