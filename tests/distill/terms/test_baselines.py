"""The baseline terms against the loops of `reference_baselines.py`, and what is particular to each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.distill.base import Term
from kdsearch.distill.ops.centres import centre_cosines, image_centres
from kdsearch.distill.ops.labels import labels_at
from kdsearch.distill.ops.similarity import pair_similarity, pool_nodes
from kdsearch.distill.registry import registry
from kdsearch.distill.taps import require_tap
from kdsearch.errors import UserError
from kdsearch.models.seg_output import SegOutput

from . import reference_baselines as reference
from .reference import valid_pixels

CLASSES, CHANNELS, SIZE = 5, {"student": 3, "teacher": 6}, (5, 7)
INFO = DatasetInfo("toy", tuple("abcde"), ((0, 0, 0),) * CLASSES, 3, (0.5,) * 3, (0.5,) * 3)
NODES = ["none", "stride2", "stride4", "half", "grid2", "grid3", "grid8"]


class Scene:
    """Random outputs of two networks of different widths, and labels with an absent class and ignored pixels."""

    def __init__(self, batch: int) -> None:
        generator = torch.Generator().manual_seed(batch)
        outputs = {}
        for who, channels in CHANNELS.items():
            logits, head = (
                torch.randn(batch, c, *SIZE, generator=generator, dtype=torch.float64) for c in (CLASSES, channels)
            )
            outputs[who] = SegOutput(logits, {"head": head})
        self.student, self.teacher = outputs["student"], outputs["teacher"]
        self.reads = [self.student.logits.requires_grad_(), self.student.taps["head"].requires_grad_()]
        present = torch.tensor([0, 1, 2, 4])
        self.target = present[torch.randint(4, (batch, *SIZE), generator=generator)]
        self.target[:, 0, 1] = IGNORE_INDEX
        self.target[0, 2, 2:] = IGNORE_INDEX

    def build(self, name: str, **config: Any) -> Term:
        shapes = [{"logits": (CLASSES, *SIZE), "head": (channels, *SIZE)} for channels in CHANNELS.values()]
        term = registry()[name]
        return term(term.Config(**config), *shapes, INFO).double()

    def check(self, term: Term, expected: Callable[[SegOutput, SegOutput], Tensor]) -> None:
        value, wanted = term(self.student, self.teacher, self.target), expected(self.student, self.teacher)
        torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-10)
        reads = [*self.reads, *term.parameters()]
        grads, wanted_grads = (
            torch.autograd.grad(loss, reads, allow_unused=True, materialize_grads=True) for loss in (value, wanted)
        )
        for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
            torch.testing.assert_close(grad, wanted_grad, rtol=1e-10, atol=1e-10)


@pytest.fixture(params=[1, 3], ids="B={}".format)
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request.param)


@pytest.mark.parametrize("node", NODES)
def test_skd_pair(scene: Scene, node: str) -> None:
    """`none`, `stride2` and `grid8` have more nodes than channels, the others fewer: both forms."""
    term = scene.build("skd_pair", node=node)
    scene.check(term, lambda s, t: reference.pair_similarity(s.taps["head"], t.taps["head"], node))


@pytest.mark.parametrize("count_ignored", [False, True])
def test_ifvd(scene: Scene, count_ignored: bool) -> None:
    term = scene.build("ifvd", count_ignored=count_ignored)
    scene.check(term, lambda s, t: reference.ifvd(s.taps["head"], t.taps["head"], scene.target, count_ignored))


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_cwd(scene: Scene, tau: float) -> None:
    scene.check(scene.build("cwd", tau=tau), lambda s, t: reference.cwd(s.logits, t.logits, tau))


def test_cwd_feature(scene: Scene) -> None:
    term = scene.build("cwd_feature", tau=2)
    scene.check(term, lambda s, t: reference.cwd(term.adapter(s.taps["head"]), t.taps["head"], 2))


@pytest.mark.parametrize("mask_ignored", [True, False])
@pytest.mark.parametrize(("beta", "gamma"), [(1, 1), (0, 0.3), (2, 0)])
def test_dist(scene: Scene, beta: float, gamma: float, mask_ignored: bool) -> None:
    places = valid_pixels(scene.target if mask_ignored else torch.zeros_like(scene.target))
    term = scene.build("dist", beta=beta, gamma=gamma, temperature=1.5, mask_ignored=mask_ignored)
    scene.check(term, lambda s, t: reference.dist(s.logits, t.logits, places, beta, gamma, 1.5))


def test_at(scene: Scene) -> None:
    scene.check(scene.build("at"), lambda s, t: reference.at(s.taps["head"], t.taps["head"]))


def test_fitnet(scene: Scene) -> None:
    term = scene.build("fitnet")
    weight = term.adapter.weight
    assert term.adapter.bias is None
    scene.check(term, lambda s, t: reference.fitnet(s.taps["head"], t.taps["head"], weight[:, :, 0, 0]))


@pytest.mark.parametrize("name", ["cwd_feature", "fitnet"])
def test_equal_channels_need_no_adapter(name: str) -> None:
    shapes = {"logits": (CLASSES, *SIZE), "head": (6, *SIZE)}
    term = registry()[name]
    assert isinstance(term(term.Config(), shapes, shapes, INFO).adapter, nn.Identity)


# --- pair-wise similarity ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "size"), list(zip(NODES, [(5, 7), (3, 4), (2, 2), (3, 3), (2, 2), (3, 3), (8, 8)], strict=True))
)
def test_pool_nodes(node: str, size: tuple[int, int]) -> None:
    assert pool_nodes(torch.randn(2, 3, 5, 7), node).shape == (2, 3, *size)


def test_half_is_the_grid_of_skd() -> None:
    """Windows of `int(size / 2)` in ceil mode: 2 x 2 on even maps; of 65 places 32, 32 and the last one."""
    feat = torch.arange(65.0 * 65).view(1, 1, 65, 65)
    assert pool_nodes(feat, "half")[0, 0].tolist() == [[65 * y + x for x in (31, 63, 64)] for y in (31, 63, 64)]
    assert pool_nodes(torch.randn(1, 1, 64, 128), "half").shape[-2:] == (2, 2)
    assert pool_nodes(torch.randn(1, 1, 1, 3), "half").shape[-2:] == (1, 3)
    assert not torch.equal(pool_nodes(feat, "grid3"), pool_nodes(feat, "half"))  # equal windows


@pytest.mark.parametrize("node", ["", "stride", "stride0", "grid-1", "max2", "grid2x", "half2"])
def test_pool_nodes_knows_its_kinds(node: str) -> None:
    with pytest.raises(ValueError, match="no node pooling"):
        pool_nodes(torch.randn(2, 3, 5, 7), node)


@pytest.mark.parametrize("noise", [0, 1e-4, 1e-2, 1])
def test_pair_similarity_is_accurate_in_single_precision(noise: float) -> None:
    """Of nearly equal networks too, where the expanded form subtracts numbers that agree in all digits."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2, 16, 24, 24, generator=generator)
    teacher = student + noise * torch.randn(student.shape, generator=generator)
    unit_s, unit_t = (nn.functional.normalize(x.double().flatten(2), dim=1) for x in (student, teacher))
    exact = (unit_s.mT @ unit_s - unit_t.mT @ unit_t).square().mean().item()
    value = pair_similarity(student, teacher)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact, rel=1e-4, abs=1e-14)


def test_pair_similarity_of_a_rotated_student_is_zero() -> None:
    """Only the cosines count, not the basis; nor the number of channels."""
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(2, 4, 6, 6, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(7, 4, generator=generator, dtype=torch.float64)).Q
    student = torch.einsum("dc,bchw->bdhw", turn, teacher)
    assert pair_similarity(student, teacher).item() < 1e-14
    assert pair_similarity(student[:, :, :2, :2], teacher[:, :, :2, :2]).item() < 1e-14  # the direct form


def test_pair_similarity_of_vanished_features() -> None:
    nothing = torch.zeros(2, 3, 5, 7, requires_grad=True)
    pair_similarity(nothing, torch.randn(2, 3, 5, 7)).backward()
    assert nothing.grad is not None
    assert not nothing.grad.any()


# --- the other terms --------------------------------------------------------------------------------------------------


def test_centre_cosines_of_one_centre_a_batch(scene: Scene) -> None:
    feat, (label, valid) = scene.teacher.taps["head"], labels_at(scene.target, SIZE)
    centre_bkc = image_centres(feat, label, valid, CLASSES)
    for b in range(len(feat)):
        whole = centre_cosines(feat, centre_bkc[b], label)
        torch.testing.assert_close(whole[b], centre_cosines(feat, centre_bkc, label)[b], rtol=1e-12, atol=0)


def test_ifvd_of_vanished_features() -> None:
    scene = Scene(2)
    nothing = torch.zeros_like(scene.student.taps["head"]).requires_grad_()
    term = scene.build("ifvd")
    term(SegOutput(scene.student.logits, {"head": nothing}), scene.teacher, scene.target).backward()
    assert nothing.grad is not None
    assert not nothing.grad.any()


def test_cwd_where_a_probability_underflows() -> None:
    """`log(softmax(x))` is -inf here and the value inf."""
    scene = Scene(1)
    value = scene.build("cwd").float()(
        SegOutput((3000 * scene.student.logits).float(), {}), SegOutput(scene.teacher.logits.float(), {}), scene.target
    )
    assert value.isfinite()


def test_dist_sees_correlation_only() -> None:
    """Rows may be scaled and shifted towards uniform, which keeps rho; other logits with the same order do not."""
    scene = Scene(2)
    prob = scene.teacher.logits.softmax(1)
    mixed = SegOutput((0.3 * prob + 0.7 / CLASSES).log(), {})
    assert scene.build("dist")(mixed, scene.teacher, scene.target).item() < 1e-14
    doubled = SegOutput(2 * scene.teacher.logits, {})
    assert scene.build("dist")(doubled, scene.teacher, scene.target).item() > 1e-3


def test_dist_of_constant_probabilities() -> None:
    scene = Scene(2)
    flat = SegOutput(torch.zeros_like(scene.student.logits).requires_grad_(), {})
    assert scene.build("dist")(flat, flat, scene.target).item() == 0
    value = scene.build("dist", gamma=0)(flat, scene.teacher, scene.target)
    assert value.item() == pytest.approx(0.5)
    value.backward()
    assert flat.logits.grad is not None
    assert not flat.logits.grad.any()


def test_dist_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="both 0"):
        registry()["dist"].Config(beta=0, gamma=0)


@pytest.mark.parametrize("name", ["at", "cwd_feature", "fitnet", "ifvd", "skd_pair"])
def test_a_missing_tap_is_refused(name: str) -> None:
    term = registry()[name]
    student = {"logits": (CLASSES, 4, 4), "c3": (3, 4, 4), "c4": (3, 2, 2)}
    teacher = {"logits": (CLASSES, 4, 4), "c4": (5, 2, 2), "c3": (4, 4, 4), "head": (3, 4, 4)}
    with pytest.raises(UserError, match=rf"{name}: 'head' is not a tap of both networks; .* share: c3, c4\.$"):
        term(term.Config(), student, teacher, INFO)
    term(term.Config(tap="c4"), student, teacher, INFO)


def test_networks_without_a_shared_tap() -> None:
    with pytest.raises(UserError, match="at: these networks share no tap"):
        require_tap("at", "logits", {"logits": (2, 4, 4)}, {"logits": (2, 4, 4), "head": (3, 4, 4)})
