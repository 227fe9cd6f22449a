from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from kdsearch.data.info import DatasetInfo
from kdsearch.distill.ops.discriminator import Discriminator
from kdsearch.distill.terms.adversarial import Adversarial
from kdsearch.errors import UserError
from kdsearch.models.seg_output import SegOutput

from . import reference_stc as reference

CLASSES = 3
INFO = DatasetInfo("toy", tuple("abc"), ((0, 0, 0),) * CLASSES, 3, (0.5,) * 3, (0.5,) * 3)
LABELS = torch.zeros(2, 4, 5, dtype=torch.long)
MODES = ["hinge", "wgan_gp"]


def build(size: tuple[int, int] = (4, 5), seed: int = 0, **config: Any) -> Adversarial:
    torch.manual_seed(seed)
    shapes = {"logits": (CLASSES, *size)}
    term = Adversarial(Adversarial.Config(**{"width": 2} | config), shapes, shapes, INFO).double()
    for name, parameter in term.named_parameters():
        if name.endswith("gamma"):
            parameter.data.fill_(0.7)  # 0 at first: attention would not show
    return term


def outputs(seed: int = 0, size: tuple[int, int] = (4, 5)) -> tuple[SegOutput, SegOutput]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 2, CLASSES, *size, generator=generator, dtype=torch.float64)
    return SegOutput(student.clone().requires_grad_()), SegOutput(3 * teacher)


def train(term: Adversarial, optimizer: torch.optim.Optimizer) -> Tensor:
    """What a trial does after the student's step."""
    term.discriminator.requires_grad_()
    loss = term.adversary_loss()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    term.discriminator.requires_grad_(False)
    return loss.detach()


def same(found: Tensor, wanted: Tensor, leaves: list[Tensor]) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    grads, wanted_grads = (
        torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True) for loss in (found, wanted)
    )
    for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
        torch.testing.assert_close(grad, wanted_grad, rtol=1e-9, atol=1e-10)


def test_students_loss_equals_its_loop() -> None:
    term, (student, teacher) = build(), outputs()
    score = reference.discriminator(student.logits, term.discriminator.state_dict())
    same(term(student, teacher, LABELS), -score.mean(), [student.logits])


@pytest.mark.parametrize("mode", MODES)
def test_discriminators_loss_equals_its_loop(mode: str) -> None:
    term, (student, teacher) = build(mode=mode), outputs()
    term(student, teacher, LABELS)
    lots = copy.deepcopy(term.random) if mode == "wgan_gp" else None
    term.discriminator.requires_grad_()
    loss = term.adversary_loss()
    state = term.discriminator.state_dict(keep_vars=True)  # with the spectral norms of this step
    fake, real = (reference.discriminator(output.logits.detach(), state) for output in (student, teacher))
    if lots is None:
        wanted = sum((1 - r).clamp_min(0) + (1 + f).clamp_min(0) for r, f in zip(real, fake, strict=True)).mean() / 2
    else:
        share = lots.uniform(2, 1, 1, 1, device=torch.device("cpu")).double()
        between = ((1 - share) * student.logits + share * teacher.logits).detach().requires_grad_()
        scores = reference.discriminator(between, state)
        (slope,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
        penalty = sum((part.square().sum().sqrt() - 1) ** 2 for part in slope) / 2
        wanted = fake.mean() - real.mean() + 10 * penalty
    same(loss, wanted, list(term.discriminator.parameters()))


def test_hinge_of_a_discriminator_that_knows_nothing_is_2_and_the_students_0() -> None:
    term, (student, teacher) = build(), outputs()
    torch.nn.init.zeros_(term.discriminator.layers[-1].weight)
    torch.nn.init.zeros_(term.discriminator.layers[-1].bias)
    assert term(student, teacher, LABELS).item() == 0
    assert term.adversary_loss().item() == 2


@pytest.mark.parametrize(
    ("size", "scores"),
    [((45, 45), (1, 1)), ((4, 5), (1, 1)), ((1, 9), (1, 1)), ((64, 128), (1, 5)), ((65, 65), (1, 1))],
)
def test_maps_of_any_size(size: tuple[int, int], scores: tuple[int, int]) -> None:
    discriminator = Discriminator(CLASSES, size, 4)
    logits = torch.randn(2, CLASSES, *size, requires_grad=True)
    score = discriminator(logits)
    assert score.shape == (2, 1, *scores)
    score.square().sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.any()


@pytest.mark.parametrize("mode", MODES)
def test_each_step_leaves_the_other_network_alone(mode: str) -> None:
    term, (student, teacher) = build(mode=mode), outputs()
    optimizer = term.adversary_optimizer()
    before = copy.deepcopy(term.state_dict())
    term(student, teacher, LABELS).backward()
    assert all(torch.equal(value, before[name]) for name, value in term.state_dict().items())
    assert all(parameter.grad is None for parameter in term.parameters())

    gradient = student.logits.grad.clone()
    train(term, optimizer)
    assert torch.equal(student.logits.grad, gradient)
    assert all(parameter.grad is not None for parameter in term.parameters())
    student.logits.grad = None
    term(student, teacher, LABELS)
    train(term, optimizer)
    assert student.logits.grad is None


@pytest.mark.parametrize("mode", MODES)
def test_resumed_steps_are_the_same_bit_for_bit(mode: str) -> None:
    def steps(term: Adversarial, optimizer: torch.optim.Optimizer, seeds: range) -> list[Tensor]:
        values = []
        for seed in seeds:
            student, teacher = outputs(seed)
            values += [term(student, teacher, LABELS).detach(), train(term, optimizer)]
        return values

    term, other = build(mode=mode, lr=0.01), build(mode=mode, lr=0.01, seed=1)
    optimizer, other_optimizer = term.adversary_optimizer(), other.adversary_optimizer()
    steps(term, optimizer, range(3))
    file = io.BytesIO()
    torch.save([term.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    term_state, optimizer_state = torch.load(file, weights_only=True)
    other.load_state_dict(term_state)
    other_optimizer.load_state_dict(optimizer_state)
    found, wanted = (steps(*pair, range(3, 6)) for pair in ((other, other_optimizer), (term, optimizer)))
    assert [value.item() for value in found] == [value.item() for value in wanted]


@pytest.mark.parametrize("mode", MODES)
def test_the_discriminator_learns_and_the_student_follows(mode: str) -> None:
    term = build((16, 16), mode=mode, width=8, lr=1e-2)
    optimizer = term.adversary_optimizer()
    for seed in range(30):
        student, teacher = outputs(seed, (16, 16))
        teacher.logits = teacher.logits.cumsum(2)  # smooth, whatever its scale
        value = term(student, teacher, LABELS)
        train(term, optimizer)
    assert -value.detach() < -term(SegOutput(teacher.logits), teacher, LABELS)
    logits = student.logits.detach().clone().requires_grad_()
    mover = torch.optim.Adam([logits], lr=0.1)
    values = []
    for _ in range(10):
        value = term(SegOutput(logits), teacher, LABELS)
        (logits.grad,) = torch.autograd.grad(value, logits)
        mover.step()
        values.append(value.item())
    assert values[-1] < values[0]


def test_a_step_iterates_spectral_norms_once() -> None:
    term, (student, teacher) = build(), outputs()
    term(student, teacher, LABELS)
    parametrization = term.discriminator.layers[1].parametrizations.weight
    matrix, u = parametrization.original.flatten(1), parametrization[0]._u.clone()
    v = torch.nn.functional.normalize(
        matrix.T @ torch.nn.functional.normalize(matrix @ parametrization[0]._v, dim=0), dim=0
    )
    term.adversary_loss()
    assert not torch.equal(parametrization[0]._u, u)
    torch.testing.assert_close(parametrization[0]._v, v, rtol=1e-12, atol=1e-12)


def test_settings_without_effect_are_errors() -> None:
    with pytest.raises(ValidationError, match="gp_weight"):
        Adversarial.Config(gp_weight=5.0)
    assert Adversarial.Config(mode="wgan_gp", gp_weight=5.0).gp_weight == 5
    for mode in MODES:
        config = Adversarial.Config(mode=mode)
        assert Adversarial.Config(**config.model_dump()) == config


def test_logits_of_other_classes_are_named() -> None:
    with pytest.raises(UserError, match="5 classes"):
        Adversarial(Adversarial.Config(), {"logits": (3, 4, 5)}, {"logits": (5, 4, 5)}, INFO)
