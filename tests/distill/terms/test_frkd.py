"""The frkd terms against the loops of `reference_frkd.py`, and what their entropies and distances mean."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.distill.ops.logits import entropy, foreground
from kdsearch.distill.terms.frkd_refine import FRKDRefine
from kdsearch.models.seg_output import SegOutput

from . import reference_frkd
from .reference import valid_pixels
from .scene import CLASSES, Scene

TAP = {"tap": "con1"}


@pytest.mark.parametrize("norm", ["none", "std", "l2"])
@pytest.mark.parametrize("rho", [None, 0.4])
@pytest.mark.parametrize("filter_wrong", [False, True])
def test_refine(scene: Scene, norm: str, rho: float | None, filter_wrong: bool) -> None:
    threshold = {} if rho is None else {"thr": "quantile", "rho": rho}
    term = scene.build("frkd_refine", norm=norm, bg_ratio=0.3, filter_wrong=filter_wrong, **threshold, **TAP)
    logits, target = scene.teacher.logits, scene.target
    front = reference_frkd.foreground(logits, target, rho)
    if filter_wrong:
        front &= reference_frkd.right(logits, target)
    parts = [{place: 1.0 for place in valid_pixels(target) if (place in front) == part} for part in (True, False)]

    def expected(s: SegOutput, t: SegOutput) -> Tensor:
        maps = (s.taps["con1"], t.taps["con1"], target)
        return sum(w * reference_frkd.refine(*maps, part, norm) for w, part in zip((1, 0.3), parts, strict=True))

    scene.check(term, expected)


@pytest.mark.parametrize("filter_wrong", [False, True])
def test_refine_soft(scene: Scene, filter_wrong: bool) -> None:
    logits, target = scene.teacher.logits, scene.target
    weights = {place: math.exp(-e / 0.3) for place, e in reference_frkd.entropies(logits, target).items()}
    if filter_wrong:
        weights = {place: w * (place in reference_frkd.right(logits, target)) for place, w in weights.items()}
    term = scene.build("frkd_refine", soft=True, t_e=0.3, filter_wrong=filter_wrong, **TAP)
    scene.check(term, lambda s, t: reference_frkd.refine(s.taps["con1"], t.taps["con1"], target, weights, "std"))


@pytest.mark.parametrize("mask", ["valid", "foreground"])
def test_location(narrow: Scene, mask: str) -> None:
    target = narrow.target
    places = set(valid_pixels(target))
    if mask == "foreground":
        places = reference_frkd.foreground(narrow.teacher.logits, target, None)
    term = narrow.build("frkd_location", mask=mask, tau=0.2, **TAP)
    narrow.check(term, lambda s, t: reference_frkd.location(s.taps["con1"], t.taps["con1"], target, places, 0.2))


@pytest.mark.parametrize("name", ["inter", "intra"])
def test_distances(narrow: Scene, name: str) -> None:
    function = getattr(reference_frkd, name)
    term = narrow.build(f"frkd_{name}", **TAP)
    narrow.check(term, lambda s, t: function(s.taps["con1"], t.taps["con1"], narrow.target))


@pytest.mark.parametrize("name", ["frkd_location", "frkd_inter", "frkd_intra"])
def test_the_scale_of_the_features_does_not_matter(scene: Scene, name: str) -> None:
    term = scene.build(name, **TAP)
    value = term(scene.student, scene.teacher, scene.target)
    for scale_s, scale_t in ((100.0, 1.0), (1.0, 0.01)):
        scaled_s, scaled_t = (
            SegOutput(output.logits, {"con1": output.taps["con1"] * scale})
            for output, scale in ((scene.student, scale_s), (scene.teacher, scale_t))
        )
        torch.testing.assert_close(term(scaled_s, scaled_t, scene.target), value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["frkd_location", "frkd_inter"])
def test_one_class_has_no_location(scene: Scene, name: str) -> None:
    value = scene.build(name, **TAP)(scene.student, scene.teacher, torch.zeros_like(scene.target))
    assert value.item() == 0
    value.backward()


@pytest.mark.parametrize("name", ["frkd_inter", "frkd_intra", "frkd_location", "frkd_refine"])
def test_features_that_vanish_leave_gradients_finite(scene: Scene, name: str) -> None:
    dead = torch.zeros_like(scene.student.taps["con1"]).requires_grad_()
    value = scene.build(name, **TAP)(SegOutput(scene.student.logits, {"con1": dead}), scene.teacher, scene.target)
    value.backward()
    assert value.isfinite()
    assert dead.grad.isfinite().all()
    assert dead.grad.abs().max() < 1e3


def test_entropy_goes_from_certain_to_uniform() -> None:
    assert (entropy(torch.zeros(1, CLASSES, 2, 2)) - 1).abs().max() < 1e-6
    certain = torch.zeros(1, CLASSES, 2, 2)
    certain[:, 1] = 1e4
    assert (entropy(certain) == 0).all()
    certain[:, 0] = -torch.inf
    assert (entropy(certain) == 0).all()


@pytest.mark.parametrize("rho", [None, 0.1, 0.7])
@pytest.mark.parametrize("classes", [2, 19])
def test_foreground_is_a_part_of_the_valid_pixels(rho: float | None, classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    entropy_bhw = entropy(torch.randn(3, classes, 20, 30, generator=generator))
    valid = torch.rand(3, 20, 30, generator=generator) < 0.6
    valid[2] = False
    front = foreground(entropy_bhw, valid, rho)
    assert not (front & ~valid).any()
    assert not front[2].any()
    for b in range(2):
        inside, outside = entropy_bhw[b][front[b]], entropy_bhw[b][valid[b] & ~front[b]]
        assert inside.max() <= outside.min()
        if rho is not None:
            assert abs(len(inside) / valid[b].sum() - rho) < 0.01


def test_parts_add_up_to_all_valid_pixels(scene: Scene) -> None:
    """A pixel is in one part or the other: changing one changes the value, ignored ones do not."""
    term = scene.build("frkd_refine", norm="none", bg_ratio=1.0, **TAP)
    (grad,) = torch.autograd.grad(term(scene.student, scene.teacher, scene.target), scene.student.taps["con1"])
    assert torch.equal(grad.ne(0).any(1), scene.target != IGNORE_INDEX)


@pytest.mark.parametrize(
    "config",
    [{"rho": 0.5}, {"t_e": 0.5}, {"soft": True, "bg_ratio": 0.1}, {"soft": True, "thr": "quantile"}],
)
def test_settings_without_effect_are_errors(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="no effect"):
        FRKDRefine.Config(**config)
