"""Conformance suite of distillation terms: the contract of `kdsearch.distill.base.Term` as tests."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from kdsearch.config.terms.base import TermConfig
from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.models.seg_output import SegOutput
from kdsearch.testing.memory import peak_extra_bytes
from kdsearch.testing.term_cases import (
    CLASSES,
    TermCase,
    gradients,
    mapped,
    random_output,
    random_states,
    restore,
    tensors,
)

__all__ = ["TermCase", "TermConformance"]

Change = Callable[[Tensor], Tensor]


class TermConformance:
    """Inherit, with a fixture `case` that returns a `TermCase`: one for each mode of the term."""

    def test_settings(self, case: TermCase) -> None:
        """The defaults are valid, and every setting is described."""
        config = case.kind.Config
        assert issubclass(config, TermConfig)
        assert config() is not None
        assert all(setting.description for setting in config.model_fields.values())

    def test_value_and_gradients(self, case: TermCase) -> None:
        """A finite scalar with finite gradients for the student and every parameter, and none for the teacher."""
        term, student, teacher = case.build(), case.output("student", 0), case.output("teacher", 1)
        for tensor in tensors(teacher):
            tensor.requires_grad_()
        value = case.call(term, student, teacher, case.labels())
        assert value.shape == ()
        assert value.isfinite()
        assert value > 0 or case.may_be_negative
        value.backward()  # type: ignore[no-untyped-call]
        assert all(tensor.grad is None for tensor in tensors(teacher))
        grads = [tensor.grad for tensor in tensors(student) if tensor.grad is not None]
        assert grads
        assert all(grad.isfinite().all() and grad.abs().sum() > 0 for grad in grads)
        for name, parameter in term.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name

    def test_requirements(self, case: TermCase) -> None:
        """The term reads no tap that `requirements` leaves out."""
        term = case.build()
        student, teacher = case.output("student", 0), case.output("teacher", 1)
        required = term.requirements
        for output, names in ((student, required.taps), (teacher, required.taps + required.teacher_taps)):
            output.taps = {name: tap for name, tap in output.taps.items() if name in names}
        case.call(term, student, teacher, case.labels())

    def test_gradcheck(self, case: TermCase) -> None:
        """Analytical gradients equal numerical ones."""
        if not case.whole_gradient:
            pytest.skip("holds a part of the student fixed")
        term, student, teacher = case.build(), case.output("student", 0), case.output("teacher", 1)
        case.call(term, student, teacher, case.labels())  # fills queues
        term.eval()
        rngs = random_states(term)

        def value(*inputs: Tensor) -> Tensor:
            restore(rngs)
            return case.call(
                term, SegOutput(inputs[0], dict(zip(student.taps, inputs[1:], strict=True))), teacher, case.labels()
            )

        assert gradcheck(value, tuple(tensors(student)))

    def test_all_ignored_is_zero_with_a_graph(self, case: TermCase) -> None:
        """Without a valid pixel the value is an exact 0 with a graph and no gradient."""
        if not case.masks_ignored:
            pytest.skip("counts every pixel, as its authors do")
        term, student, teacher = case.build(), case.output("student", 0), case.output("teacher", 1)
        nothing = torch.full_like(case.labels(), IGNORE_INDEX)
        for _ in range(2):
            value = case.call(term, student, teacher, nothing)
            assert value.item() == 0
            value.backward()  # type: ignore[no-untyped-call]
            assert all(p.grad is not None and not p.grad.any() for p in term.parameters() if p.requires_grad)
            assert not any(tensor.grad is not None and tensor.grad.any() for tensor in tensors(student))
            case.call(term, student, teacher, case.labels())  # again with full queues

    def test_ignored_pixels_take_no_part(self, case: TermCase) -> None:
        """Ignored pixels change neither the value nor the gradients."""
        if not case.masks_ignored:
            pytest.skip("counts every pixel, as its authors do")
        term, target = case.build(), case.labels()
        student, teacher = case.output("student", 0), case.output("teacher", 1)
        case.call(term, student, teacher, target)
        term.eval()  # batch normalisation in training sees every pixel
        rngs = random_states(term)
        value = case.call(term, student, teacher, target)
        grads = gradients(value, student)
        ignored_b1hw = (target == IGNORE_INDEX)[:, None]
        if case.video:  # labels belong to the first frame
            ignored_b1hw = torch.cat([ignored_b1hw, torch.zeros_like(ignored_b1hw)])
        other_s, other_t = (mapped(o, lambda x: x + 7 * x.sin() * ignored_b1hw) for o in (student, teacher))
        restore(rngs)
        other = case.call(term, other_s, other_t, target)
        torch.testing.assert_close(other, value, rtol=0, atol=1e-12)
        for grad, other_grad in zip(grads, gradients(other, other_s), strict=True):
            torch.testing.assert_close(grad, other_grad, rtol=0, atol=1e-12)
            assert not (grad * ignored_b1hw).any()

    @pytest.mark.parametrize("scale", [1, 2, 0.5])
    def test_pixels_outside_the_view_take_no_part(self, case: TermCase, scale: float) -> None:
        """What the networks say beyond the border of the image changes neither the value nor a gradient."""
        inside_bhw = case.inside()
        target = case.labels().masked_fill(~inside_bhw[: len(case.labels())], IGNORE_INDEX)
        teacher_size = (int(case.size[0] * scale), math.ceil(case.size[1] * scale))
        student, teacher = case.output("student", 0), case.output("teacher", 1, teacher_size)
        student.inside_bhw = teacher.inside_bhw = inside_bhw
        term = case.build()
        case.call(term, student, teacher, target)  # fills queues
        term.eval()  # batch normalisation in training sees every pixel
        rngs = random_states(term)
        value = case.call(term, student, teacher, target)
        grads = gradients(value, student)
        others = []
        for output in (student, teacher):
            shown_bhw = output.inside_at(output.logits.shape[-2:])
            assert shown_bhw is not None
            outside_b1hw = ~shown_bhw[:, None]
            others.append(mapped(output, lambda x, outside=outside_b1hw: x + 7 * x.sin() * outside))  # type: ignore[misc]
        restore(rngs)
        other_s, other_t = others
        other = case.call(term, other_s, other_t, target)
        torch.testing.assert_close(other, value, rtol=0, atol=1e-12)
        for grad, other_grad in zip(grads, gradients(other, other_s), strict=True):
            torch.testing.assert_close(grad, other_grad, rtol=0, atol=1e-12)
            assert not (grad * ~inside_bhw[:, None]).any()

    def test_views_that_show_the_image_alone(self, case: TermCase) -> None:
        """A mask without a pixel outside has no effect."""
        results = []
        for inside_bhw in (None, torch.ones_like(case.inside())):
            student, teacher = case.output("student", 0), case.output("teacher", 1)
            student.inside_bhw = teacher.inside_bhw = inside_bhw
            value = case.call(case.build(), student, teacher, case.labels())
            results.append([value, *gradients(value, student)])
        for alone, masked in zip(*results, strict=True):
            torch.testing.assert_close(masked, alone, rtol=1e-11, atol=1e-13)

    def test_order_of_the_batch(self, case: TermCase) -> None:
        """The order of the batch has no effect."""
        if not case.order_free:
            pytest.skip("draws at random for each image, or reads two frames")
        self._same_after(case, lambda x: x.flip(0), lambda y: y.flip(0))

    def test_numbers_of_the_classes(self, case: TermCase) -> None:
        """The numbering of the classes has no effect."""
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

    def test_order_of_the_channels(self, case: TermCase) -> None:
        """The order of the channels has no effect."""
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
    def test_half_precision(self, case: TermCase, dtype: torch.dtype) -> None:
        """Half precision and autocast give the value of fp32, also for large inputs."""
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

    def test_state_round_trip(self, case: TermCase) -> None:
        """A term restored from its `state_dict` continues bit for bit."""
        term = case.build(**case.resumed)
        other = case.build(**case.resumed)
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
    def test_networks_of_different_strides(self, case: TermCase, scale: float) -> None:
        """Maps of both networks may differ in size."""
        teacher_size = (int(case.size[0] * scale), math.ceil(case.size[1] * scale))
        student, teacher = case.output("student", 0), case.output("teacher", 1, teacher_size)
        target = case.labels().repeat_interleave(2, 1).repeat_interleave(2, 2)
        value = case.call(case.build(), student, teacher, target)
        assert value.isfinite()
        assert any(grad.any() for grad in gradients(value, student))

    def test_memory_layout(self, case: TermCase) -> None:
        """Channels-last and transposed maps give the same value and gradients."""
        self._same_after(case, lambda x: x.contiguous(memory_format=torch.channels_last), lambda y: y)
        self._same_after(case, lambda x: x.transpose(2, 3).contiguous().transpose(2, 3), lambda y: y)

    def test_networks_that_agree(self, case: TermCase) -> None:
        """The value is 0 where both networks agree."""
        if not case.zero_at_equality:
            pytest.skip("not zero at equality")
        student = case.output("student", 0)
        teacher = mapped(case.output("teacher", 1), lambda x: x)
        teacher.logits, teacher.taps = student.logits.detach(), teacher.taps | student.taps
        assert abs(case.call(case.build(), student, teacher, case.labels()).item()) < 1e-14

    def test_two_steps_before_the_backward_pass(self, case: TermCase) -> None:
        """Two calls before one backward pass give the sum of both gradients."""
        student, teachers = case.output("student", 0), [case.output("teacher", seed) for seed in (1, 2)]
        term, twin = case.build(), case.build()
        first, second = (case.call(term, student, teacher, case.labels()) for teacher in teachers)
        together = gradients(first + second, student)
        alone = [gradients(case.call(twin, student, teacher, case.labels()), student) for teacher in teachers]
        for grad, *parts in zip(together, *alone, strict=True):
            torch.testing.assert_close(grad, sum(parts), rtol=1e-11, atol=1e-13)

    def test_memory_estimate(self, case: TermCase) -> None:
        """`estimate_bytes`, where a term has it, is within a factor of 1.5 of the measured peak."""
        size, classes, batch = (32, 48), 19, 2
        shapes = {who: case.shapes(who, size, classes, case.wide) for who in ("student", "teacher")}
        info = DatasetInfo("toy", tuple(map(str, range(classes))), ((0, 0, 0),) * classes, 3, (0.5,) * 3, (0.5,) * 3)
        term = case.kind(case.kind.Config(**case.config), shapes["student"], shapes["teacher"], info)
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
        stated = term.estimate_bytes(batch)
        if stated is None:
            pytest.skip("the term does not state its memory")
        measured = peak_extra_bytes(step)
        assert measured / 1.5 < stated < measured * 1.5, (measured, stated)

    def test_adversary(self, case: TermCase) -> None:
        """The adversary is frozen for the student and improves under its own optimiser."""
        term, student, teacher = case.build(), case.output("student", 0), case.output("teacher", 1)
        optimizer = term.adversary_optimizer()
        frozen = [parameter for parameter in term.parameters() if not parameter.requires_grad]
        if optimizer is None:
            assert not frozen
            return
        own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        assert {id(parameter) for parameter in own} == {id(parameter) for parameter in frozen}
        case.call(term, student, teacher, case.labels()).backward()  # type: ignore[no-untyped-call]
        assert all(parameter.grad is None for parameter in own)
        before = [tensor.grad.clone() for tensor in tensors(student) if tensor.grad is not None]
        for parameter in own:
            parameter.requires_grad_()
        first = term.adversary_loss()
        first.backward()  # type: ignore[no-untyped-call]
        assert all(parameter.grad is not None for parameter in own)
        after = [tensor.grad for tensor in tensors(student) if tensor.grad is not None]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        optimizer.step()
        for parameter in own:
            parameter.requires_grad_(False)
        case.call(term, student, teacher, case.labels())
        assert term.adversary_loss() < first

    def _same_after(self, case: TermCase, change_map: Change, change_labels: Change) -> None:
        student, teacher, target = case.output("student", 0), case.output("teacher", 1), case.labels()
        value = case.call(case.build(), student, teacher, target)
        changed = mapped(student, change_map)
        other = case.call(case.build(), changed, mapped(teacher, change_map), change_labels(target))
        torch.testing.assert_close(other, value, rtol=1e-11, atol=1e-14)
        for grad, other_grad in zip(gradients(value, student), gradients(other, changed), strict=True):
            torch.testing.assert_close(other_grad, change_map(grad), rtol=1e-9, atol=1e-13)
