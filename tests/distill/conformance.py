"""The suite that every distillation term passes: add a `Case` to `CASES` for each mode of a term.

Networks are stand-ins: random logits and taps.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.distill import registry
from kdsearch.distill.base import Shapes, Term
from kdsearch.distill.sampling import RandomState
from kdsearch.models.output import SegOutput

CLASSES, BATCH, SIZE = 4, 2, (4, 5)
INFO = DatasetInfo("toy", tuple("abcd"), ((0, 0, 0),) * CLASSES, 3, (0.5,) * 3, (0.5,) * 3)


@dataclass(frozen=True)
class Case:
    """One term in one mode. Taps map a name to its channels."""

    term: str
    config: dict[str, Any] = field(default_factory=dict)
    student: dict[str, int] = field(default_factory=dict)
    teacher: dict[str, int] = field(default_factory=dict)
    masks_ignored: bool = True
    zero_at_equality: bool = False
    channel_free: bool = False  # the order of a tap's channels does not matter, if both networks change it

    def __str__(self) -> str:
        return "-".join([self.term, *(f"{key}={value}" for key, value in self.config.items()), *self.student])

    def taps(self, who: str) -> dict[str, int]:
        return self.student if who == "student" else self.teacher

    def shapes(self, who: str, size: tuple[int, int] = SIZE) -> Shapes:
        return {"logits": (CLASSES, *size)} | {name: (c, *size) for name, c in self.taps(who).items()}

    def build(self, **config: Any) -> Term:
        term = registry()[self.term]
        torch.manual_seed(3)
        return term(term.Config(**self.config | config), self.shapes("student"), self.shapes("teacher"), INFO).double()

    def output(self, who: str, seed: int, size: tuple[int, int] = SIZE) -> SegOutput:
        generator = torch.Generator().manual_seed(seed)

        def draw(channels: int) -> Tensor:
            shape = (BATCH, channels, *size)
            map_bchw = torch.randn(shape, generator=generator, dtype=torch.float64)
            return map_bchw.requires_grad_(who == "student")

        return SegOutput(draw(CLASSES), {name: draw(channels) for name, channels in self.taps(who).items()})


def labels(ignored: bool = True) -> Tensor:
    target = torch.randint(CLASSES, (BATCH, *SIZE), generator=torch.Generator().manual_seed(5))
    if ignored:
        target[0, 0, :2] = IGNORE_INDEX
        target[1, 2, 3] = IGNORE_INDEX
    return target


def tensors(output: SegOutput) -> list[Tensor]:
    return [output.logits, *output.taps.values()]


def mapped(output: SegOutput, function: Any) -> SegOutput:
    """A new student output of `function(tensor)`, with its own leaves."""
    new = [function(tensor.detach().clone()).requires_grad_(tensor.requires_grad) for tensor in tensors(output)]
    return SegOutput(new[0], dict(zip(output.taps, new[1:], strict=True)))


def gradients(value: Tensor, output: SegOutput) -> list[Tensor]:
    """Gradient at each tensor of `output`; zeros where the value does not depend on it."""
    return list(torch.autograd.grad(value, tensors(output), allow_unused=True, materialize_grads=True))


CON = {"con1": 6}
CASES = [
    Case("kd", zero_at_equality=True),
    Case("kd", {"temperature": 4.0}, zero_at_equality=True),
    Case("kd", {"mask_ignored": False}, masks_ignored=False, zero_at_equality=True),
    Case("dsrd", zero_at_equality=True),
    Case("dsrd", {"detail_source": "derived", "foreground": (1, 2, 3)}, zero_at_equality=True),
    Case("dsrd", {"temperature": 2.0, "form": "soft_ce"}),
    Case("dsrd", {}, {"bound1": 2, "bin1": 2}, {"bound1": 2, "bin1": 2, "bin2": 2}, zero_at_equality=True),
    Case("clfd", {}, CON, CON, channel_free=True),
    Case("clfd", {}, {"con1": 3, "con2": 5}, {"con1": 6, "con2": 5}),
    Case("clfd", {"symmetric": True, "layers": "con+sem"}, CON | {"sem": 4}, CON | {"sem": 4}, channel_free=True),
    Case("clfd", {"mode": "spatial"}, CON, {"con1": 4}, channel_free=True),
    Case("clfd", {"mode": "proto_spatial"}, {"head": 3}, {"head": 5}),
    Case("clfd", {"mode": "relation"}, CON, {"con1": 4}, channel_free=True),
    Case("clfd", {"mode": "pixel_proto"}, CON, CON, channel_free=True),
    Case("clfd", {"mode": "pixel_pixel", "anchors_per_class": None, "chunk": 7}, CON, CON, channel_free=True),
    Case("clfd", {"mode": "pixel_pixel"}, {"con1": 3}, CON),
    Case("clfd", {"mode": "memory", "chunk": 7}, CON, CON),
]


class TermConformance:
    """Inherit, with a fixture `case`."""

    def test_value_and_gradients(self, case: Case) -> None:  # (1)
        term, student, teacher = case.build(), case.output("student", 0), case.output("teacher", 1)
        for tensor in tensors(teacher):
            tensor.requires_grad_()
        value = term(student, teacher, labels())
        assert value.shape == ()
        assert value.isfinite()
        assert value > 0
        value.backward()
        assert all(tensor.grad is None for tensor in tensors(teacher))
        grads = [tensor.grad for tensor in tensors(student) if tensor.grad is not None]
        assert grads
        assert all(grad.isfinite().all() and grad.abs().sum() > 0 for grad in grads)
        for name, parameter in term.named_parameters():
            assert parameter.grad is not None, name

    def test_needs_names_what_is_read(self, case: Case) -> None:
        term = case.build()
        student, teacher = case.output("student", 0), case.output("teacher", 1)
        for output in (student, teacher):
            output.taps = {name: tap for name, tap in output.taps.items() if name in term.needs.taps}
        term(student, teacher, labels())

    def test_gradcheck(self, case: Case) -> None:  # (2)
        term, student, teacher = case.build(), case.output("student", 0), case.output("teacher", 1)
        term(student, teacher, labels())  # fills queues
        term.eval()
        rngs = [(module, module.get_extra_state()) for module in term.modules() if isinstance(module, RandomState)]

        def value(*inputs: Tensor) -> Tensor:
            for module, state in rngs:
                module.set_extra_state(state)
            return term(SegOutput(inputs[0], dict(zip(student.taps, inputs[1:], strict=True))), teacher, labels())

        assert gradcheck(value, tuple(tensors(student)))

    def test_all_ignored_is_zero_with_a_graph(self, case: Case) -> None:  # (3)
        if not case.masks_ignored:
            pytest.skip("counts every pixel, as its authors do")
        term, student, teacher = case.build(), case.output("student", 0), case.output("teacher", 1)
        nothing = torch.full_like(labels(), IGNORE_INDEX)
        for _ in range(2):
            value = term(student, teacher, nothing)
            assert value.item() == 0
            value.backward()
            assert all(p.grad is not None and not p.grad.any() for p in term.parameters())
            assert not any(tensor.grad is not None and tensor.grad.any() for tensor in tensors(student))
            term(student, teacher, labels())  # again with full queues

    def test_ignored_pixels_take_no_part(self, case: Case) -> None:  # (4)
        if not case.masks_ignored:
            pytest.skip("counts every pixel, as its authors do")
        term, target = case.build(), labels()
        student, teacher = case.output("student", 0), case.output("teacher", 1)
        term(student, teacher, target)
        term.eval()  # batch normalisation in training sees every pixel
        rngs = [(module, module.get_extra_state()) for module in term.modules() if isinstance(module, RandomState)]
        value = term(student, teacher, target)
        grads = gradients(value, student)
        ignored_b1hw = (target == IGNORE_INDEX)[:, None]
        other_s, other_t = (mapped(o, lambda x: x + 7 * x.sin() * ignored_b1hw) for o in (student, teacher))
        for module, state in rngs:
            module.set_extra_state(state)
        other = term(other_s, other_t, target)
        torch.testing.assert_close(other, value, rtol=0, atol=1e-12)
        for grad, other_grad in zip(grads, gradients(other, other_s), strict=True):
            torch.testing.assert_close(grad, other_grad, rtol=0, atol=1e-12)
            assert not (grad * ignored_b1hw).any()

    def test_order_of_the_batch(self, case: Case) -> None:  # (5)
        self._same_after(case, lambda x: x.flip(0), lambda y: y.flip(0))

    def test_numbers_of_the_classes(self, case: Case) -> None:  # (6)
        new_of_old = torch.tensor([0, 2, 3, 1])
        student, teacher = case.output("student", 0), case.output("teacher", 1)
        target = labels()
        moved = torch.where(target == IGNORE_INDEX, target, new_of_old[target.clamp_max(CLASSES - 1)])
        old_of_new = new_of_old.argsort()
        moved_s, moved_t = mapped(student, lambda x: x), mapped(teacher, lambda x: x)
        moved_s.logits, moved_t.logits = student.logits[:, old_of_new], teacher.logits[:, old_of_new]
        expected = case.build()(student, teacher, target)
        torch.testing.assert_close(case.build()(moved_s, moved_t, moved), expected, rtol=1e-11, atol=0)

    def test_order_of_the_channels(self, case: Case) -> None:  # (7)
        if not case.channel_free:
            pytest.skip("has a layer over channels, or reads none")
        student, teacher = case.output("student", 0), case.output("teacher", 1)
        expected = case.build()(student, teacher, labels())
        student.taps, teacher.taps = (
            {name: tap.flip(1) for name, tap in output.taps.items()} for output in (student, teacher)
        )
        torch.testing.assert_close(case.build()(student, teacher, labels()), expected, rtol=1e-11, atol=0)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(self, case: Case, dtype: torch.dtype) -> None:  # (8)
        student, teacher = case.output("student", 0), case.output("teacher", 1)
        exact, rounded = case.build().float(), case.build().float()
        full = exact(mapped(student, Tensor.float), mapped(teacher, Tensor.float), labels())
        half_s, half_t = (mapped(output, lambda x: x.to(dtype)) for output in (student, teacher))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = rounded(half_s, half_t, labels())
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full, rtol=1e-2, atol=0)
        with_fp32_math = case.build().float()(mapped(half_s, Tensor.float), mapped(half_t, Tensor.float), labels())
        assert value.item() == with_fp32_math.item()

        large_s, large_t = (mapped(output, lambda x: (100 * x).to(dtype)) for output in (student, teacher))
        large = rounded(large_s, large_t, labels())
        assert large.isfinite()
        assert all(grad.isfinite().all() for grad in gradients(large, large_s))

    def test_state_round_trip(self, case: Case) -> None:  # (9)
        term = case.build(**({"anchors_per_class": 2} if case.config.get("mode") == "pixel_pixel" else {}))
        other = case.build(**({"anchors_per_class": 2} if case.config.get("mode") == "pixel_pixel" else {}))
        for step in range(2):
            term(case.output("student", step), case.output("teacher", step + 10), labels())
        file = io.BytesIO()
        torch.save(term.state_dict(), file)
        file.seek(0)
        torch.manual_seed(11)
        other.load_state_dict(torch.load(file, weights_only=True))
        for step in range(2, 4):
            results = []
            for module in (term, other):
                student = case.output("student", step)
                value = module(student, case.output("teacher", step + 10), labels())
                results.append([value, *gradients(value, student)])
            assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
        for key, saved in term.state_dict().items():
            assert torch.equal(saved, other.state_dict()[key]), key

    @pytest.mark.parametrize("teacher_size", [(8, 10), (2, 3)])
    def test_networks_of_different_strides(self, case: Case, teacher_size: tuple[int, int]) -> None:  # (10)
        student, teacher = case.output("student", 0), case.output("teacher", 1, teacher_size)
        target = labels().repeat_interleave(2, 1).repeat_interleave(2, 2)
        value = case.build()(student, teacher, target)
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
        assert abs(case.build()(student, teacher, labels()).item()) < 1e-14

    def test_two_steps_before_the_backward_pass(self, case: Case) -> None:
        student, teachers = case.output("student", 0), [case.output("teacher", seed) for seed in (1, 2)]
        term, twin = case.build(), case.build()
        first, second = (term(student, teacher, labels()) for teacher in teachers)
        together = gradients(first + second, student)
        alone = [gradients(twin(student, teacher, labels()), student) for teacher in teachers]
        for grad, *parts in zip(together, *alone, strict=True):
            torch.testing.assert_close(grad, sum(parts), rtol=1e-11, atol=1e-13)

    def _same_after(self, case: Case, change_map: Any, change_labels: Any) -> None:
        student, teacher, target = case.output("student", 0), case.output("teacher", 1), labels()
        value = case.build()(student, teacher, target)
        changed = mapped(student, change_map)
        other = case.build()(changed, mapped(teacher, change_map), change_labels(target))
        torch.testing.assert_close(other, value, rtol=1e-11, atol=1e-14)
        for grad, other_grad in zip(gradients(value, student), gradients(other, changed), strict=True):
            torch.testing.assert_close(other_grad, change_map(grad), rtol=1e-9, atol=1e-13)
