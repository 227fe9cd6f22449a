from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kdsearch.config.terms.base import TermConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import FramePair, Requirements, Term
from kdsearch.distill.registry import build_terms, registry
from kdsearch.distill.weighted_sum import WeightedSum
from kdsearch.models.seg_output import SegOutput

INFO = DatasetInfo("toy", tuple("abc"), ((0, 0, 0),) * 3, 3, (0.5,) * 3, (0.5,) * 3)
SHAPES = {"logits": (3, 4, 4), "head": (5, 4, 4)}


def build(**configs: dict[str, Any]) -> WeightedSum:
    terms = registry()
    return build_terms({name: terms[name].Config(**config) for name, config in configs.items()}, SHAPES, SHAPES, INFO)


def outputs() -> tuple[SegOutput, SegOutput, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        SegOutput(torch.randn(2, 3, 4, 4, generator=generator), {"head": torch.randn(2, 5, 4, 4, generator=generator)})
        for _ in range(2)
    )
    for tensor in (student.logits, student.taps["head"]):
        tensor.requires_grad_()
    return student, teacher, torch.randint(3, (2, 4, 4), generator=generator)


class Constant(Term):
    name = "constant"

    def __init__(self, value: float, requirements: Requirements = Requirements()) -> None:  # noqa: B008
        super().__init__(self.Config(), SHAPES, SHAPES, INFO)
        self.value = value
        self._requirements = requirements

    @property
    def requirements(self) -> Requirements:
        return self._requirements

    def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
        return 0 * student.logits.sum() + self.value


def test_total_is_the_sum_of_the_weighted_terms() -> None:
    student, teacher, target = outputs()
    terms = build(kd={"weight": 0.5}, clfd={"weight": 3})
    total, weighted = terms(student, teacher, target, epoch=0, epochs=9)
    assert list(weighted) == ["kd", "clfd"]
    for name, factor in (("kd", 0.5), ("clfd", 3)):
        torch.testing.assert_close(weighted[name], factor * terms.terms[name](student, teacher, target))
    torch.testing.assert_close(total, weighted["kd"] + weighted["clfd"])
    assert total.requires_grad


def test_a_term_in_warm_up_is_computed_with_weight_0() -> None:
    student, teacher, target = outputs()
    terms = build(clfd={"mode": "memory", "warmup_epochs": 2})
    for epoch, counts in ((0, False), (1, False), (2, True)):
        total, _ = terms(student, teacher, target, epoch=epoch, epochs=9)
        assert (total.item() > 0) == counts
        total.backward()
        for parameter in terms.parameters():
            assert parameter.grad is not None
            assert bool(parameter.grad.any()) == counts


def test_no_terms() -> None:
    student, teacher, target = outputs()
    terms = build()
    total, weighted = terms(student, teacher, target, epoch=0, epochs=9)
    assert total.item() == 0
    assert total.dtype == torch.float32
    assert weighted == {}
    assert terms.requirements == Requirements()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_stays_visible(value: float) -> None:
    total, weighted = WeightedSum({"fine": Constant(1.0), "broken": Constant(value)})(*outputs(), epoch=0, epochs=9)
    assert not total.isfinite()
    assert [name for name, loss in weighted.items() if not loss.isfinite()] == ["broken"]


def test_requirements_are_joined() -> None:
    terms = WeightedSum(
        {
            "a": Constant(0, Requirements(("c1", "head"), ("cnn.head",))),
            "b": Constant(0, Requirements(("head", "bin1"), ("gate", "cnn.head"), detail_heads=True)),
        }
    )
    assert terms.requirements == Requirements(
        ("c1", "head", "bin1"), ("cnn.head", "gate"), detail_heads=True, video=False
    )


def test_gradient_ratio() -> None:
    student, teacher, target = outputs()
    terms = build(kd={"weight": 2.0}, clfd={"mode": "pixel_pixel", "anchors_per_class": None, "chunk": 8})
    task = F.cross_entropy(student.logits, target)
    total, weighted = terms(student, teacher, target, epoch=0, epochs=9)
    ratio = terms.gradient_ratio(task, weighted, student.logits)
    norms = [torch.autograd.grad(loss, student.logits, retain_graph=True)[0].norm() for loss in (task, weighted["kd"])]
    assert ratio == {"kd": pytest.approx(float(norms[1] / norms[0]), rel=1e-5), "clfd": 0.0}
    assert terms.gradient_ratio(task, weighted, student.taps["head"])["clfd"] > 0
    (task + total).backward()  # the graphs are still there
    assert student.taps["head"].grad is not None


def test_terms_see_frames_in_full_precision_without_the_teachers_graph() -> None:
    class Video(Constant):
        def loss(self, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None) -> Tensor:
            assert frames is not None
            assert frames.student.logits.dtype == frames.flow_b2hw.dtype == torch.float32
            assert frames.student.logits.requires_grad
            assert not frames.teacher.logits.requires_grad
            assert not torch.is_autocast_enabled("cpu")
            return frames.student.logits.sum()

    student, teacher, target = outputs()
    teacher.logits.requires_grad_()
    half = [SegOutput(output.logits.bfloat16(), output.taps) for output in (student, teacher)]
    image = torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16)
    frames = FramePair(*half, torch.zeros(2, 2, 4, 4, dtype=torch.bfloat16), image, image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Video(0.0)(*half, target, frames)


def test_a_weight_may_fall_at_the_end_of_the_training() -> None:
    config = TermConfig(weight=2.0, warmup_epochs=1, decay=0.4)
    assert [config.weight_at(epoch, 10) for epoch in (0, 1, 5, 6, 7, 8, 9)] == [0, 2, 2, 2, 1.5, 1, 0.5]
    assert TermConfig(weight=2.0).weight_at(9, 10) == 2
    student, teacher, target = outputs()
    terms = build(kd={"decay": 0.4, "weight": 2.0})
    full, late = (terms(student, teacher, target, epoch=epoch, epochs=10)[0] for epoch in (0, 9))
    torch.testing.assert_close(late, full / 4)
