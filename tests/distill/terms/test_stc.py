"""The terms of spatial-temporal consistency distillation against the loops of `reference_stc.py`, and their limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.distill.base import FramePair, Term
from kdsearch.distill.registry import registry
from kdsearch.errors import UserError
from kdsearch.models.seg_output import SegOutput

from . import reference_stc as reference

CLASSES, SIZE, INPUT = 4, (3, 4), (6, 8)
INFO = DatasetInfo("toy", tuple("abcd"), ((0, 0, 0),) * CLASSES, 3, (0.5,) * 3, (0.5,) * 3)
CHANNELS_S = {"logits": CLASSES, "head": 5, "c4": 3}
CHANNELS_T = {"logits": CLASSES, "head": 6, "cnn.head": 6, "transformer.head": 14, "c4": 3, "cnn.c4": 4}


class Scene:
    """Both networks' outputs on two frames, the frames and their flow; labels at the networks' size."""

    def __init__(self, full: bool = False) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        def output(channels: dict[str, int]) -> SegOutput:
            taps = {name: draw(2, c, *SIZE) for name, c in channels.items()}
            return SegOutput(taps.pop("logits"), taps)

        self.student, self.later_s = output(CHANNELS_S), output(CHANNELS_S)
        self.teacher, self.later_t = output(CHANNELS_T), output(CHANNELS_T)
        # A teacher that nearly agrees with itself, so that some pixels pass and some do not.
        self.teacher.logits = self.later_t.logits + draw(*self.teacher.logits.shape) / 2
        self.leaves = [
            tensor.requires_grad_()
            for output in (self.student, self.later_s)
            for tensor in (output.logits, *output.taps.values())
        ]
        size = INPUT if full else SIZE
        self.flow = 0.8 * draw(2, 2, *size)
        self.image, self.next_image = draw(2, 3, *size), draw(2, 3, *size) / 3
        self.target = torch.randint(CLASSES, (2, *SIZE), generator=generator)
        self.target[:, 0, 1] = IGNORE_INDEX

    @property
    def frames(self) -> FramePair:
        return FramePair(self.later_s, self.later_t, self.flow, self.image, self.next_image)

    def seen(self) -> Tensor:
        return reference.visibility(self.image, self.next_image, self.flow)

    def check(self, term: Term, wanted: Tensor) -> None:
        value = term(self.student, self.teacher, self.target, self.frames)
        torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-10)
        found, expected = (
            torch.autograd.grad(loss, self.leaves, allow_unused=True, materialize_grads=True)
            for loss in (value, wanted)
        )
        for grad, wanted_grad in zip(found, expected, strict=True):
            torch.testing.assert_close(grad, wanted_grad, rtol=1e-10, atol=1e-10)


def build(name: str, teacher: dict[str, int] | None = None, **config: Any) -> Term:
    term = registry()[name]
    student, teacher = CHANNELS_S, CHANNELS_T if teacher is None else {"logits": CLASSES} | teacher
    shapes = [{tap: (c, *SIZE) for tap, c in channels.items()} for channels in (student, teacher)]
    return term(term.Config(**config), *shapes, INFO)


@pytest.mark.parametrize(("node", "size"), [("stride2", 2), ("none", 1)])
def test_pair(node: str, size: int) -> None:
    scene = Scene()
    feat = scene.student.taps["head"]
    by_cnn, by_transformer = (
        reference.pairs(feat, scene.teacher.taps[f"{branch}.head"], size) for branch in ("cnn", "transformer")
    )
    scene.check(build("stc_pair", node=node, beta_c=0.3), 0.3 * by_cnn + 0.7 * by_transformer)


def test_pair_at_another_tap_with_one_branch() -> None:
    scene = Scene()
    wanted = reference.pairs(scene.student.taps["c4"], scene.teacher.taps["cnn.c4"], 2)
    scene.check(build("stc_pair", tap="c4", beta_c=1.0), wanted)


def test_pair_is_zero_where_both_branches_agree_with_the_student() -> None:
    scene = Scene()
    for branch in ("cnn", "transformer"):
        scene.teacher.taps[f"{branch}.head"] = scene.student.taps["head"].detach()
    assert build("stc_pair")(scene.student, scene.teacher, scene.target).item() == 0


@pytest.mark.parametrize("teacher", [{"head": 6}, {"head": 6, "cnn.head": 6}])
def test_pair_says_which_term_takes_a_teacher_without_branches(teacher: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"transformer.*two_branch.*skd_pair"):
        build("stc_pair", teacher)


def test_pair_reads_only_the_branches_that_count() -> None:
    assert build("stc_pair").requirements.teacher_taps == ("cnn.head", "transformer.head")
    assert build("stc_pair", beta_c=1.0).requirements.teacher_taps == ("cnn.head",)
    assert build("stc_pair", beta_c=0.0).requirements.teacher_taps == ("transformer.head",)


@pytest.mark.parametrize("space", ["prob", "logit"])
@pytest.mark.parametrize("mask", [True, False])
def test_motion(space: str, mask: bool) -> None:
    scene = Scene()
    now, later = scene.student.logits, scene.later_s.logits
    wanted = reference.motion(now, later, scene.flow, scene.seen(), space == "prob", mask)
    scene.check(build("stc_motion", space=space, mask_out_of_frame=mask), wanted)


def test_motion_with_the_later_frame_held_fixed() -> None:
    scene = Scene()
    now, later = scene.student.logits, scene.later_s.logits.detach()
    scene.check(
        build("stc_motion", stop_gradient=True), reference.motion(now, later, scene.flow, scene.seen(), True, True)
    )


def test_motion_at_the_logits_size_follows_the_flow_in_their_pixels() -> None:
    scene = Scene(full=True)
    flow, seen = reference.halved(scene.image, scene.next_image, scene.flow)
    now, later = scene.student.logits, scene.later_s.logits
    scene.check(build("stc_motion"), reference.motion(now, later, flow, seen, True, True))


def test_motion_at_the_inputs_size_takes_up_sampled_logits() -> None:
    scene = Scene(full=True)
    now, later = (
        F.interpolate(o.logits, INPUT, mode="bilinear", align_corners=True) for o in (scene.student, scene.later_s)
    )
    wanted = reference.motion(now, later, scene.flow, scene.seen(), True, True)
    scene.check(build("stc_motion", resolution="full"), wanted)


@pytest.mark.parametrize("config", [{}, {"space": "logit", "resolution": "full"}])
def test_motion_of_a_static_scene_is_zero(config: dict[str, Any]) -> None:
    scene = Scene(full=True)
    scene.later_s, scene.next_image = scene.student, scene.image
    scene.flow.zero_()
    assert build("stc_motion", **config)(scene.student, scene.teacher, scene.target, scene.frames).item() < 1e-28


@pytest.mark.parametrize(("name", "config"), [("stc_motion", {}), ("stc_temporal_kd", {})])
def test_nothing_counts_when_all_pixels_leave_the_frame(name: str, config: dict[str, Any]) -> None:
    scene = Scene()
    scene.flow.fill_(100)
    value = build(name, **config)(scene.student, scene.teacher, scene.target, scene.frames)
    assert value.item() == 0
    value.backward()
    assert not scene.student.logits.grad.any()


@pytest.mark.parametrize("name", ["stc_motion", "stc_temporal_kd", "stc_frames"])
def test_mirrored_frames_have_the_same_value_when_u_is_negated(name: str) -> None:
    scene = Scene()
    term = build(name)
    value = term(scene.student, scene.teacher, scene.target, scene.frames)
    for output in (scene.student, scene.later_s, scene.teacher, scene.later_t):
        output.logits, output.taps = output.logits.flip(3), {tap: feat.flip(3) for tap, feat in output.taps.items()}
    scene.image, scene.next_image, scene.target = scene.image.flip(3), scene.next_image.flip(3), scene.target.flip(2)
    scene.flow = scene.flow.flip(3) * torch.tensor([-1.0, 1.0], dtype=torch.float64)[:, None, None]
    mirrored = term(scene.student, scene.teacher, scene.target, scene.frames)
    torch.testing.assert_close(mirrored, value, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("config", "size"), [({}, 1), ({"node": "stride2"}, 2)])
def test_frames(config: dict[str, Any], size: int) -> None:
    """12 nodes against 6 channels, in the form of products; 4 nodes against them, directly."""
    scene = Scene()
    heads = [output.taps["head"] for output in (scene.student, scene.later_s, scene.teacher, scene.later_t)]
    scene.check(build("stc_frames", **config), reference.frames(*heads, size))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_temporal_kd(temperature: float) -> None:
    scene = Scene()
    wanted = reference.temporal_kd(
        scene.student.logits, scene.teacher.logits, scene.later_t.logits, scene.flow, scene.seen(), scene.target,
        temperature,
    )  # fmt: skip
    assert wanted > 0
    scene.check(build("stc_temporal_kd", temperature=temperature), wanted)


def test_temporal_kd_of_a_static_scene_is_zero_where_both_networks_agree() -> None:
    scene = Scene()
    scene.flow.zero_()
    scene.teacher.logits = scene.later_t.logits = scene.student.logits.detach()
    value = build("stc_temporal_kd")(scene.student, scene.teacher, scene.target, scene.frames)
    assert abs(value.item()) < 1e-14


def test_temporal_kd_leaves_out_what_the_teacher_itself_takes_back() -> None:
    scene = Scene()
    scene.flow.zero_()
    scene.teacher.logits = -scene.later_t.logits
    assert build("stc_temporal_kd")(scene.student, scene.teacher, scene.target, scene.frames).item() == 0
