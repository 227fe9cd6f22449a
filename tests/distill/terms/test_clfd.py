from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.distill.ops.class_queue import ClassQueue
from kdsearch.distill.ops.sampling import sample_per_class
from kdsearch.distill.terms.clfd import CLFD
from kdsearch.errors import UserError
from kdsearch.models.seg_output import SegOutput

from . import reference

MODES = ["proto", "spatial", "proto_spatial", "relation", "pixel_proto", "pixel_pixel", "memory"]


def info(classes: int) -> DatasetInfo:
    return DatasetInfo("toy", tuple("abcdefgh"[:classes]), ((0, 0, 0),) * classes, 3, (0.5,) * 3, (0.5,) * 3)


def build(classes: int = 4, **config: Any) -> CLFD:
    torch.manual_seed(0)
    shapes = {"logits": (classes, 4, 5), "head": (6, 4, 5)}
    return CLFD(CLFD.Config(**config), shapes, shapes, info(classes)).double()


def maps() -> tuple[SegOutput, SegOutput, Tensor]:
    generator = torch.Generator().manual_seed(2)
    draw = [torch.randn(2, 6, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2)]
    student, teacher = (SegOutput(feat[:, :4], {"head": feat}) for feat in draw)
    student.taps["head"].requires_grad_()
    return student, teacher, torch.randint(4, (2, 4, 5), generator=generator)


@pytest.mark.parametrize("mode", MODES)
def test_a_class_that_is_absent_changes_nothing(mode: str) -> None:
    student, teacher, target = maps()
    few, more = (build(classes, mode=mode)(student, teacher, target) for classes in (4, 7))
    torch.testing.assert_close(more, few, rtol=1e-12, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_one_class_alone_gives_zero(mode: str) -> None:
    student, teacher, target = maps()
    target = torch.where(target == 2, target, IGNORE_INDEX)
    value = build(mode=mode)(student, teacher, target)
    assert value.item() == 0
    value.backward()
    assert not student.taps["head"].grad.any()


@pytest.mark.parametrize("mode", MODES)
def test_features_that_vanish_get_no_exploding_gradient(mode: str) -> None:
    student, teacher, target = maps()
    with torch.no_grad():
        student.taps["head"][:, :, :2] = 0
        student.taps["head"][(target == 1)[:, None].expand(-1, 6, -1, -1)] = 0
    build(mode=mode)(student, teacher, target).backward()
    assert student.taps["head"].grad.abs().max() < 100


def test_value_when_both_networks_agree_falls_with_tau() -> None:
    student, _, target = maps()
    values = [build(tau=tau)(student, student, target).item() for tau in (1, 0.3, 0.1, 0.03)]
    assert values == sorted(values, reverse=True)
    assert values[2] == pytest.approx(reference.proto_at_equality(student.taps["head"].detach(), target, 0.1))


def test_default_temperature_is_the_modes_own() -> None:
    taus = {mode: CLFD.Config(mode=mode).temperature for mode in MODES}
    assert taus.pop("memory") == 0.07
    assert taus.pop("relation") == 0.2
    assert set(taus.values()) == {0.1}
    assert CLFD.Config(mode="memory", tau=0.5).temperature == 0.5


@pytest.mark.parametrize(
    "config",
    [
        {"mode": "relation", "symmetric": True},
        {"mode": "proto", "anchors_per_class": 8},
        {"mode": "pixel_proto", "queue": 100},
        {"mode": "pixel_pixel", "pixels": 3},
        {"mode": "spatial", "chunk": 10},
        {"mode": "cosine"},
        {"tau": 0},
        {"temperature": 1},
    ],
)
def test_settings_without_effect_are_errors(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CLFD.Config(**config)


def test_a_config_that_was_written_out_in_full_reads_back() -> None:
    for mode in MODES:
        config = CLFD.Config(mode=mode)
        assert CLFD.Config(**config.model_dump()) == config


class TestLayers:
    def shapes(self, **channels: int) -> dict[str, tuple[int, int, int]]:
        return {name: (c, 4, 5) for name, c in ({"logits": 4} | channels).items()}

    def test_auto_takes_the_shared_contrast_taps(self) -> None:
        student, teacher = self.shapes(con1=4, con2=4, head=4), self.shapes(con1=4, con2=4, con3=4, head=4)
        assert CLFD(CLFD.Config(), student, teacher, info(4)).requirements.taps == ("con1", "con2")

    def test_auto_falls_back_to_the_head(self) -> None:
        student, teacher = self.shapes(head=4), self.shapes(con1=4, head=8)
        term = CLFD(CLFD.Config(), student, teacher, info(4))
        assert term.requirements.taps == ("head",)
        assert [tuple(p.shape) for p in term.parameters()] == [(8, 4, 1, 1)]

    @pytest.mark.parametrize("mode", ["spatial", "relation"])
    def test_channel_free_modes_have_no_parameters(self, mode: str) -> None:
        term = CLFD(CLFD.Config(mode=mode), self.shapes(head=4), self.shapes(head=8), info(4))
        assert not list(term.parameters())

    @pytest.mark.parametrize("layers", ["con", "sem", "con+sem", "auto", "head"])
    def test_missing_taps_are_named(self, layers: str) -> None:
        with pytest.raises(UserError, match="c4"):
            CLFD(CLFD.Config(layers=layers), self.shapes(c4=4, con1=3), self.shapes(c4=4), info(4))

    def test_half_of_what_was_asked_for_is_an_error(self) -> None:
        with pytest.raises(UserError, match="they share: sem"):
            CLFD(CLFD.Config(layers="con+sem"), self.shapes(sem=4), self.shapes(sem=4), info(4))


class TestClassQueue:
    def picture(self) -> tuple[Tensor, Tensor, Tensor]:
        """Features whose only non-zero channel tells the class."""
        label = torch.randint(3, (2, 4, 5), generator=torch.Generator().manual_seed(0))
        valid = torch.ones_like(label, dtype=torch.bool)
        valid[:, 0] = False
        feat = torch.nn.functional.one_hot(torch.where(valid, label, 3), 4).permute(0, 3, 1, 2).float()
        return feat, torch.where(valid, label, 0), valid

    @pytest.mark.parametrize(("length", "count"), [(5, 1), (5, 10), (7, 2), (50, 3)])
    def test_every_entry_is_a_pixel_of_its_class(self, length: int, count: int) -> None:
        queue = ClassQueue(4, length, 4)
        feat, label, valid = self.picture()
        pushed = torch.zeros(4, dtype=torch.long)
        for _ in range(4):
            queue.push(feat, label, valid, count)
            per_image = torch.stack([(valid & (label == c)).sum((1, 2)) for c in range(4)])
            pushed += per_image.clamp_max(count).sum(1)
            assert torch.equal(queue.fill_k, pushed.clamp_max(length))
            assert torch.equal(queue.next_k, pushed % length)
            for c in range(4):
                stored = queue.entries_kqc[c][queue.filled_kq[c]]
                assert (stored[:, c] == 1).all()
                assert (stored.sum(1) == 1).all()

    def test_new_entries_replace_the_oldest(self) -> None:
        queue = ClassQueue(1, 3, 2)
        for step in range(5):
            angle = torch.tensor(float(step))
            feat = torch.stack([angle.cos(), angle.sin()]).view(1, 2, 1, 1)
            queue.push(feat, torch.zeros(1, 1, 1, dtype=torch.long), torch.ones(1, 1, 1, dtype=torch.bool), 10)
        angles = torch.atan2(queue.entries_kqc[0, :, 1], queue.entries_kqc[0, :, 0])
        expected = torch.tensor([3.0, 4 - 2 * torch.pi, 2.0])
        torch.testing.assert_close(angles, expected)

    def test_a_later_push_leaves_an_earlier_gradient_alone(self) -> None:
        student, teacher, target = maps()
        feat = student.taps["head"]
        term, twin = (build(mode="memory", queue=2) for _ in range(2))
        value = term(student, teacher, target)
        term(student, SegOutput(teacher.logits, {"head": -teacher.taps["head"]}), target)  # overwrites the queue
        (late,) = torch.autograd.grad(value, feat)
        (expected,) = torch.autograd.grad(twin(student, teacher, target), feat)
        assert torch.equal(late, expected)

    def test_eval_mode_stores_nothing(self) -> None:
        student, teacher, target = maps()
        term = build(mode="memory").eval()
        assert term(student, teacher, target).item() == 0
        assert not term.queues["head"].fill_k.any()


def test_sampling_takes_distinct_pixels_of_the_class() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(3, (2, 40), generator=generator)
    valid = torch.rand(2, 40, generator=generator) < 0.7
    index, taken = sample_per_class(label, valid, 4, 16, torch.rand(2, 40, generator=generator))
    for b in range(2):
        for c in range(4):
            chosen = index[b, c][taken[b, c]]
            available = int((valid[b] & (label[b] == c)).sum())
            assert len(chosen.unique()) == len(chosen) == min(16, available)
            assert (label[b, chosen] == c).all()
            assert valid[b, chosen].all()


def test_sampled_pixels_differ_between_steps_and_follow_the_seed() -> None:
    student, teacher, target = maps()
    term, twin = (build(mode="pixel_pixel", anchors_per_class=2) for _ in range(2))
    values, again = ([t(student, teacher, target).item() for _ in range(3)] for t in (term, twin))
    assert values == again
    assert len(set(values)) == 3
