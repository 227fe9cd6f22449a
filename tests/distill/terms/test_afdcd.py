"""afdcd and mgd against the loops of `reference_afdcd.py`, to 1e-10, and what their papers say of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from kdsearch.config.terms.afdcd import Layout
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import Term
from kdsearch.distill.ops import l1_distance, patch_contrast
from kdsearch.distill.ops.generators import FeatureMask, generator
from kdsearch.distill.ops.l1_distance import l1_distances, l1_gradient
from kdsearch.distill.registry import registry
from kdsearch.distill.terms.afdcd import AfDCD
from kdsearch.errors import UserError
from kdsearch.models.seg_output import SegOutput
from kdsearch.testing.memory import peak_extra_bytes

from . import reference_afdcd as reference

INFO = DatasetInfo("toy", tuple("ab"), ((0, 0, 0),) * 2, 3, (0.5,) * 3, (0.5,) * 3)


def maps(batch: int = 2, channels: int = 12, height: int = 4, width: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    guess, teacher = torch.randn(2, batch, channels, height, width, generator=generator, dtype=torch.float64)
    return guess.requires_grad_(), teacher


def check(value: Tensor, wanted: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-10)
    grads, wanted_grads = (torch.autograd.grad(loss, inputs) for loss in (value, wanted))
    for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
        torch.testing.assert_close(grad, wanted_grad, rtol=1e-10, atol=1e-10)


def build(name: str, student: tuple[int, int, int], teacher: tuple[int, int, int], **config: Any) -> Term:
    torch.manual_seed(1)
    shapes_s, shapes_t = ({"logits": (2, *shape[1:]), "c4": shape} for shape in (student, teacher))
    return registry()[name](registry()[name].Config(**config), shapes_s, shapes_t, INFO).double()


def run(term: Term, student: Tensor, teacher: Tensor) -> Tensor:
    outputs = [SegOutput(torch.zeros_like(feat[:, :2]), {"c4": feat}) for feat in (student, teacher)]
    return term(*outputs, torch.zeros(len(student), *student.shape[2:], dtype=torch.long))


@pytest.mark.parametrize("tau", [1.7, 0.01], ids="tau={}".format)  # many pairs with a weight; few
@pytest.mark.parametrize("pairs", [1, 300, 2**18], ids="pairs={}".format)  # rows of a problem; problems; everything
@pytest.mark.parametrize("exclude", [True, False], ids="exclude={}".format)
def test_omni(monkeypatch: pytest.MonkeyPatch, tau: float, pairs: int, exclude: bool) -> None:
    monkeypatch.setattr(patch_contrast, "PAIRS", pairs)
    guess, teacher = maps()
    value = patch_contrast.patch_contrast(guess, teacher, Layout(4, 2, exclude), "l1", tau)
    check(value, reference.contrast(guess, teacher, 4, 2, tau, exclude_same_group=exclude), guess)


@pytest.mark.parametrize(("mode", "groups", "patch"), [("omni", 4, 2), ("spatial", 1, 2), ("channel", 4, 1)])
@pytest.mark.parametrize("metric", ["l1", "cos"])
def test_modes(mode: str, groups: int, patch: int, metric: str) -> None:
    settings = {"omni": {"groups": 4, "patch": 2}, "spatial": {"patch": 2}, "channel": {"groups": 4}}[mode]
    layout = AfDCD.Config(mode=mode, metric=metric, **settings).layout
    guess, teacher = maps(height=5)
    value = patch_contrast.patch_contrast(guess, teacher, layout, metric, 0.7)
    similarity = reference.l1 if metric == "l1" else reference.cosine
    check(value, reference.contrast(guess, teacher, groups, patch, 0.7, similarity, mode == "omni"), guess)


@pytest.mark.parametrize("few", [0.0, 1.0], ids=["dense", "sparse"])
def test_gradient_of_distances(monkeypatch: pytest.MonkeyPatch, few: float) -> None:
    monkeypatch.setattr(l1_distance, "SPARSE_UP_TO", few)
    monkeypatch.setattr(l1_distance, "GATHERED", 50)
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    right = torch.randn(3, 4, 7, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        left[0, 0, 0] = right[0, 0, 0]  # no slope at the kink
    wanted = (left[:, :, None] - right[:, None]).abs().sum(-1)
    torch.testing.assert_close(l1_distances(left, right), wanted.detach(), rtol=1e-13, atol=0)
    slope = torch.autograd.grad((wanted * weight).sum(), left)[0]
    torch.testing.assert_close(l1_gradient(weight, left, right), slope, rtol=1e-13, atol=1e-14)


def test_a_compiler_that_fails_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(left: Tensor, right: Tensor) -> Tensor:
        raise RuntimeError("no such header")

    monkeypatch.setattr(l1_distance, "COMPILE_FROM", 0)
    monkeypatch.setattr(l1_distance._Compiled, "function", broken)
    left, right = torch.rand(2, 2, 3, 4)
    with pytest.warns(UserWarning, match="no such header"):
        first = l1_distances(left, right)
    again = l1_distances(left, right)
    assert torch.equal(first, torch.cdist(left, right, p=1))
    assert torch.equal(again, first)


@pytest.mark.slow
def test_compiled_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(l1_distance, "COMPILE_FROM", 0)
    monkeypatch.setattr(l1_distance._Compiled, "function", None)
    for sizes in ((2, 5, 7, 3), (4, 64, 64, 33), (1, 16, 48, 256)):
        for dtype in (torch.float32, torch.float64):
            left, right = torch.randn(sizes[0], sizes[1], sizes[3]), torch.randn(sizes[0], sizes[2], sizes[3])
            wanted = torch.cdist(left.double(), right.double(), p=1).to(dtype)
            torch.testing.assert_close(l1_distances(left.to(dtype), right.to(dtype)), wanted, rtol=2e-6, atol=0)


def test_each_anchor_has_its_twin_and_the_other_groups() -> None:
    layout = Layout(groups=4, patch=2, exclude_same_group=True)
    dropped = patch_contrast.dropped(layout, torch.arange(16))
    assert ((~dropped).sum(1) == 1 + 4 * 3).all()
    assert not dropped.diagonal().any()
    assert not patch_contrast.dropped(Layout(4, 2, False), torch.arange(16)).any()


@pytest.mark.parametrize(("metric", "tau"), [("l1", 1e9), ("cos", 1e9)])
def test_with_infinite_temperature_all_pairs_are_equal(metric: str, tau: float) -> None:
    value = patch_contrast.patch_contrast(*maps(), Layout(4, 2, True), metric, tau)
    assert value.item() == pytest.approx(reference.uniform_contrast(4, 2), rel=1e-7)
    assert reference.uniform_contrast(4, 2) == pytest.approx(torch.tensor(1.0 + 4 * 3).log().item())


def test_groups_may_change_places_and_channels_inside_a_group() -> None:
    guess, teacher = maps()
    layout = Layout(4, 2, True)
    expected = patch_contrast.patch_contrast(guess, teacher, layout, "l1", 1.7)
    groups, inside = [torch.arange(12).view(4, 3)[order].flatten() for order in ([2, 0, 3, 1], slice(None))]
    inside = inside.view(4, 3)[:, [1, 2, 0]].flatten()
    for order in (groups, inside):
        value = patch_contrast.patch_contrast(guess[:, order], teacher[:, order], layout, "l1", 1.7)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    across = torch.arange(12).view(4, 3).T.flatten()
    other = patch_contrast.patch_contrast(guess[:, across], teacher[:, across], layout, "l1", 1.7)
    assert abs(other - expected) > 1e-3


def test_45_pixels_are_cropped_to_44() -> None:
    guess, teacher = maps(1, 2, 45, 45)
    layout = Layout(2, 4, True)
    value = patch_contrast.patch_contrast(guess, teacher, layout, "l1", 1.7)
    wanted = patch_contrast.patch_contrast(guess[..., :44, :44], teacher[..., :44, :44], layout, "l1", 1.7)
    assert torch.equal(value, wanted)
    grad = torch.autograd.grad(value, guess)[0]
    assert not grad[..., 44:, :].any()
    assert not grad[..., 44:].any()
    assert grad[..., :44, :44].any()


def _parts(term: Term) -> tuple[nn.Module, nn.Module]:
    return term.masked_generator.adapter, term.masked_generator.generator


def test_the_whole_term_is_its_formula() -> None:
    config = {"groups": 2, "patch": 2, "pool": 2, "tau": 1.3, "w_fd": 0.7, "w_ctr": 1.9, "mask_mode": "center"}
    student, teacher = maps(1, 4, 5, 8)
    student = student[:, :3].detach().requires_grad_()
    term = build("afdcd", (3, 5, 8), (4, 5, 8), **config)
    adapter, (first, _, second) = _parts(term)
    keep = torch.ones(5, 8, dtype=torch.float64)
    keep[1:3, 2:5] = 0
    adapted = reference.conv(student, adapter.weight, adapter.bias) * keep
    guess = reference.conv(reference.conv(adapted, first.weight, first.bias).clamp_min(0), second.weight, second.bias)
    small = reference.pooled(guess, 2), reference.pooled(teacher, 2)
    wanted = 0.7 * reference.squared_error(guess, teacher) + 1.9 * reference.contrast(*small, 2, 2, 1.3)
    check(run(term, student, teacher), wanted, student, *term.parameters())


def test_mgd_is_the_squared_error_of_the_guess() -> None:
    student, teacher = maps(2, 3, 3, 4)
    term = build("mgd", (3, 3, 4), (3, 3, 4))
    _, (first, _, second) = _parts(term)
    state = term.masked_generator.mask.random.get_extra_state()
    keep = term.masked_generator.mask(torch.ones(2, 1, 3, 4, dtype=torch.float64))
    term.masked_generator.mask.random.set_extra_state(state)
    hidden = reference.conv(student * keep, first.weight, first.bias).clamp_min(0)
    guess = reference.conv(hidden, second.weight, second.bias)
    check(run(term, student, teacher), reference.squared_error(guess, teacher), student, *term.parameters())


def test_the_enhanced_generator() -> None:
    feat, _ = maps(1, 3, 3, 4)
    torch.manual_seed(0)
    module = generator("enhanced", 3, 1).double()
    assert sum(p.numel() for p in module.parameters()) == 4 * (9 * 9 + 3)

    def conv(layer: nn.Module, x: Tensor) -> Tensor:
        return reference.conv(x, layer.weight, layer.bias)

    first = conv(module.first, feat).clamp_min(0)
    second = conv(module.second, first).clamp_min(0)
    wanted = (conv(module.from_first, first) + conv(module.from_second, second)) / 2
    torch.testing.assert_close(module(feat), wanted, rtol=1e-12, atol=1e-12)


def test_the_light_generator_is_light() -> None:
    def cost(projector: str) -> int:
        module = generator(projector, 2048, 256)
        return sum(p.numel() for p in module.parameters() if p.dim() == 4)

    with torch.device("meta"):
        assert cost("mgd") == 2 * 9 * 2048**2
        assert cost("mgd") / cost("light") == pytest.approx(46, abs=0.5)


@pytest.mark.parametrize("ratio", [0.3, 0.75])
def test_random_masks_hide_their_share_of_the_pixels(ratio: float) -> None:
    torch.manual_seed(1)
    masked = FeatureMask("random", ratio)(torch.ones(4, 3, 40, 50))
    assert torch.equal(masked, masked[:, :1].expand_as(masked))
    count = masked[:, 0].numel()
    share = (masked[:, 0] == 0).float().mean().item()
    assert abs(share - ratio) < 3 * (ratio * (1 - ratio) / count) ** 0.5
    assert not torch.equal(masked[0], masked[1])


def test_the_centre_mask_hides_a_ninth() -> None:
    masked = FeatureMask("center", 0.75)(torch.ones(1, 1, 64, 128))[0, 0]
    assert (masked == 0).sum() == (128 // 3 - 64 // 3) * (256 // 3 - 128 // 3)
    assert (masked == 0).float().mean().item() == pytest.approx(1 / 9, rel=0.05)
    rows, columns = (masked == 0).nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (21, 41, 42, 84)


def test_equal_channels_need_no_adapter() -> None:
    assert not list(build("afdcd", (32, 16, 16), (32, 16, 16)).masked_generator.adapter.parameters())
    adapter = build("afdcd", (8, 16, 16), (32, 16, 16)).masked_generator.adapter
    assert sum(p.numel() for p in adapter.parameters()) == 8 * 32 + 32


@pytest.mark.parametrize("weight", ["w_fd", "w_ctr"])
def test_a_part_without_weight_costs_nothing(monkeypatch: pytest.MonkeyPatch, weight: str) -> None:
    def forbidden(*_: object) -> Tensor:
        raise AssertionError("should not run")

    where = "torch.nn.functional.mse_loss" if weight == "w_fd" else "kdsearch.distill.terms.afdcd.patch_contrast"
    monkeypatch.setattr(where, forbidden)
    student, teacher = maps(1, 16, 16, 16)
    term = build("afdcd", (16, 16, 16), (16, 16, 16), **{weight: 0.0})
    run(term, student, teacher).backward()
    assert all(parameter.grad is not None for parameter in term.parameters())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"w_fd": 0.0, "w_ctr": 0.0}, "both 0"),
        ({"w_ctr": 0.0, "mode": "spatial"}, "'mode' has no effect with 'w_ctr' 0"),
        ({"mode": "spatial", "groups": 8}, "'groups' has no effect with mode 'spatial'"),
        ({"mode": "channel", "patch": 2}, "'patch' has no effect with mode 'channel'"),
        ({"mode": "channel", "exclude_same_group": False}, "'exclude_same_group' has no effect"),
        ({"mask_mode": "center", "mask_ratio": 0.5}, "'mask_ratio' has no effect"),
        ({"light_rank": 64}, "'light_rank' has no effect"),
        ({"mode": "channel", "groups": 1}, "a single vector has no negatives"),
        ({"groups": 1}, "leaves no negatives"),
        ({"pool": 3}, "1, 2 or 4"),
    ],
)
def test_settings_without_effect_are_errors(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AfDCD.Config(**config)


@pytest.mark.parametrize(
    ("shape", "config", "message"),
    [
        ((24, 16, 16), {}, r"16 groups do not divide .* 24 channels; set groups to one of 2, 3, 4, 6, 8, 12, 24\."),
        ((32, 15, 32), {}, r"'c4' is 15 x 32 pixels, 3 x 8 after pool 4, .* 4 x 4; set pool: 2 or patch: 15 with pool"),
        ((32, 3, 3), {}, r"set patch: 3 with pool: 1\."),
        ((32, 3, 3), {"mode": "channel"}, r"set pool: 2\."),
        ((32, 1, 1), {"mode": "spatial"}, r"set w_ctr: 0\."),
    ],
)
def test_networks_that_do_not_fit(shape: tuple[int, int, int], config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build("afdcd", shape, shape, **config)


def test_pairs_take_a_tenth_of_the_memory_of_the_matrix_or_less() -> None:
    guess, teacher = (tensor.float() for tensor in maps(1, 16, 32, 64))
    guess = guess.detach().requires_grad_()
    layout = Layout(16, 4, True)

    def naive() -> None:
        left, right = (patch_contrast.partition(x, layout) for x in (guess, teacher))
        logits = -torch.cdist(left, right, p=1) / 0.07
        kept = logits.masked_fill(patch_contrast.dropped(layout, torch.arange(256)), -torch.inf)
        (kept.logsumexp(2) - logits.diagonal(dim1=1, dim2=2)).mean().backward()

    def ours() -> None:
        patch_contrast.patch_contrast(guess, teacher, layout, "l1", 0.07).backward()

    guess.grad = torch.zeros_like(guess)
    assert peak_extra_bytes(ours) < peak_extra_bytes(naive) / 10
