"""A view that reaches beyond its image gives every term the value of the part that shows the image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kdsearch.config.terms.afdcd import Layout
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.distill.base import FramePair, Term
from kdsearch.distill.ops.patch_contrast import patch_contrast
from kdsearch.distill.registry import term_class
from kdsearch.distill.view import without_outside
from kdsearch.models.seg_output import SegOutput
from kdsearch.testing.term_cases import CLASSES, INFO

Rectangle = tuple[slice, slice]
SIZE = (8, 6)
SAME = (slice(2, 6), slice(0, 4))
"""Whole windows of two pixels."""
TAPS = {"head": (4, 5), "cnn.head": (4, 5), "transformer.head": (4, 3), "c4": (5, 5)}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def output(side: int, seed: int, batch: int = 2) -> SegOutput:
    logits = draw(batch, CLASSES, *SIZE, seed=seed)
    taps = {name: draw(batch, channels[side], *SIZE, seed=seed + 7) for name, channels in TAPS.items()}
    found = SegOutput(logits, taps)
    for tensor in (found.logits, *found.taps.values()):
        tensor.requires_grad_(side == 0)
    return found


def built(name: str, config: dict[str, Any]) -> Term:
    torch.manual_seed(3)
    kind = term_class(name)
    shapes = [
        {"logits": (CLASSES, *SIZE)} | {tap: (channels[side], *SIZE) for tap, channels in TAPS.items()}
        for side in (0, 1)
    ]
    return kind(kind.Config(**config), *shapes, INFO).double().eval()


def masked(found: SegOutput, rectangles: list[Rectangle]) -> SegOutput:
    inside_bhw = torch.zeros(len(found.logits), *SIZE, dtype=torch.bool)
    for image, (rows, columns) in zip(inside_bhw, rectangles, strict=True):
        image[rows, columns] = True
    return SegOutput(found.logits, found.taps, inside_bhw)


def cropped(found: SegOutput, rectangle: Rectangle, images: slice = slice(None)) -> SegOutput:
    place = (images, slice(None), *rectangle)
    return SegOutput(found.logits[place], {name: tap[place] for name, tap in found.taps.items()})


def check(value: Tensor, expected: Tensor, student: SegOutput) -> None:
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    leaves = [student.logits, *student.taps.values()]
    for one, other in zip(
        torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(expected, leaves, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


WHOLE_BATCH = [
    ("kd", {"mask_ignored": False}),
    ("dist", {"mask_ignored": False}),
    ("cirkd", {"mask_ignored": False}),
    ("cirkd", {"mask_ignored": False, "pool": 2}),
    ("ifvd", {"count_ignored": True}),
    ("cwd", {}),
    ("cwd_feature", {}),
    ("fitnet", {}),
    ("at", {}),
    ("skd_pair", {"node": "none"}),
    ("skd_pair", {"node": "stride2"}),
    ("stc_pair", {"node": "stride2"}),
]


@pytest.mark.parametrize(("name", "config"), WHOLE_BATCH, ids=str)
def test_the_value_is_that_of_the_images_alone(name: str, config: dict[str, Any]) -> None:
    term, student, teacher = built(name, config), output(0, 1), output(1, 2)
    target = torch.randint(CLASSES, (2, *SIZE), generator=torch.Generator().manual_seed(5))
    target[0, 2, :2] = IGNORE_INDEX
    outside = torch.ones(SIZE, dtype=torch.bool)
    outside[SAME] = False
    value = term(masked(student, [SAME] * 2), masked(teacher, [SAME] * 2), target.masked_fill(outside, IGNORE_INDEX))
    check(value, term(cropped(student, SAME), cropped(teacher, SAME), target[:, SAME[0], SAME[1]]), student)


EACH = [(slice(1, 8), slice(2, 6)), (slice(0, 3), slice(0, 2))]
"""A rectangle for each image."""


@pytest.mark.parametrize("name", ["cwd", "cwd_feature", "skd_pair", "fitnet", "at"])
def test_images_of_which_other_parts_are_seen(name: str) -> None:
    """Means over images weigh images alike, means over pixels weigh them by their pixels inside."""
    term, student, teacher = built(name, {"node": "none"} if name == "skd_pair" else {}), output(0, 1), output(1, 2)
    target = torch.zeros(2, *SIZE, dtype=torch.long)
    parts, weights = [], []
    for image, rectangle in enumerate(EACH):
        here = slice(image, image + 1)
        parts.append(term(cropped(student, rectangle, here), cropped(teacher, rectangle, here), target[here]))
        pixels = target[here][0][rectangle].numel()
        weights.append(pixels if name in ("fitnet", "at") else 1)
    expected = sum(part * weight for part, weight in zip(parts, weights, strict=True)) / sum(weights)
    check(term(masked(student, EACH), masked(teacher, EACH), target), expected, student)


def test_frames_of_which_other_parts_are_seen() -> None:
    term, now_s, now_t, later_s, later_t = built("stc_frames", {}), *(output(n % 2, n) for n in range(4))
    nothing = draw(2, 3, *SIZE)
    target = torch.zeros(2, *SIZE, dtype=torch.long)
    frames = FramePair(masked(later_s, EACH[::-1]), masked(later_t, EACH[::-1]), draw(2, 2, *SIZE), nothing, nothing)
    value = term(masked(now_s, EACH), masked(now_t, EACH), target, frames)
    total = torch.zeros((), dtype=torch.float64)
    for image, (here, there) in enumerate(zip(EACH, EACH[::-1], strict=True)):
        cosines = []
        for now, later in ((now_s, later_s), (now_t, later_t)):
            a, b = (
                [vector / vector.norm() for vector in found.taps["head"][image][:, rows, columns].flatten(1).T]
                for found, (rows, columns) in ((now, here), (later, there))
            )
            cosines.append([p @ q for p in a for q in b])
        total = total + sum((s - t) ** 2 for s, t in zip(*cosines, strict=True)) / len(cosines[0])
    check(value, total / 2, now_s)


def test_motion_reads_neither_frame_outside_its_image() -> None:
    """With a flow of one pixel to the right, a cell counts if it and its right neighbour of the later frame do."""
    term, now, later = built("stc_motion", {"space": "logit", "mask_out_of_frame": False}), output(0, 1), output(0, 2)
    flow = torch.zeros(2, 2, *SIZE, dtype=torch.float64)
    flow[:, 0] = 1
    still = torch.ones(2, 3, *SIZE, dtype=torch.float64)
    frames = FramePair(masked(later, EACH[::-1]), masked(later, EACH[::-1]), flow, still, still)
    value = term(masked(now, EACH), masked(now, EACH), torch.zeros(2, *SIZE, dtype=torch.long), frames)
    errors = []
    for image, (here, there) in enumerate(zip(EACH, EACH[::-1], strict=True)):
        for row in range(here[0].start, here[0].stop):
            for column in range(here[1].start, here[1].stop):
                right = min(column + 1, SIZE[1] - 1)
                if row in range(there[0].start, there[0].stop) and right in range(there[1].start, there[1].stop):
                    difference = now.logits[image, :, row, column] - later.logits[image, :, row, right]
                    errors.append(difference.square().mean())
    assert 0 < len(errors) < 20
    check(value, sum(errors) / len(errors), now)


@pytest.mark.parametrize("name", ["mgd", "afdcd"])
def test_errors_of_a_generator_count_inside(name: str) -> None:
    only = {"w_ctr": 0.0} if name == "afdcd" else {}
    term, student, teacher = built(name, {"mask_mode": "none"} | only), output(0, 1), output(1, 2)
    shown_s, shown_t = masked(student, EACH), masked(teacher, EACH)
    value = term(shown_s, shown_t, torch.zeros(2, *SIZE, dtype=torch.long))
    weight = term.config.w_fd if name == "afdcd" else 1.0
    generator: Any = term.masked_generator
    guess, _ = generator(without_outside(shown_s).taps["c4"], teacher.taps["c4"])
    errors = [(guess[i] - teacher.taps["c4"][i])[:, rows, columns].flatten() for i, (rows, columns) in enumerate(EACH)]
    check(value, weight * torch.cat(errors).square().mean(), student)


@pytest.mark.parametrize("metric", ["l1", "cos"])
def test_a_patch_contrasts_the_places_inside_alone(metric: Any) -> None:
    """Patches of 2 x 2 that lie half outside contrast two places with each other."""
    layout = Layout(patch=2, groups=2, exclude_same_group=False)
    student, teacher = draw(1, 4, 4, 4, seed=1).requires_grad_(), draw(1, 4, 4, 4, seed=2)
    inside = torch.ones(1, 4, 4, dtype=torch.bool)
    inside[:, :1] = inside[:, :, :2] = False
    value = patch_contrast(student, teacher, layout, metric, 0.7, inside)
    losses = []
    for rows in ((1,), (2, 3)):
        places = [(row, column, group) for row in rows for column in (2, 3) for group in (0, 1)]

        def vector(found: Tensor, place: tuple[int, int, int]) -> Tensor:
            taken = found[0, 2 * place[2] : 2 * place[2] + 2, place[0], place[1]]
            return taken / taken.norm() if metric == "cos" else taken

        for anchor in places:
            mine = vector(student, anchor)
            logits = torch.stack([
                mine @ vector(teacher, place) if metric == "cos" else -(mine - vector(teacher, place)).abs().sum()
                for place in places
            ]) / 0.7  # fmt: skip
            losses.append(logits.logsumexp(0) - logits[places.index(anchor)])
    expected = sum(losses) / len(losses)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    one, other = (torch.autograd.grad(each, student)[0] for each in (value, expected))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_maps_have_the_nearest_value_inside_beyond_the_image() -> None:
    """For each image and map size, and without a gradient."""
    found = masked(output(0, 1), EACH)
    found.taps = {"half": draw(2, 3, 4, 3, seed=9)}
    filled = without_outside(found)
    assert filled.inside_bhw is found.inside_bhw
    for image, (rows, columns) in enumerate(EACH):
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                source = (
                    min(max(row, rows.start), rows.stop - 1),
                    min(max(column, columns.start), columns.stop - 1),
                )
                assert torch.equal(filled.logits[image, :, row, column], found.logits[image, :, *source])
    (slope,) = torch.autograd.grad(filled.logits.sum(), found.logits)
    assert found.inside_bhw is not None
    assert torch.equal(slope, found.inside_bhw[:, None].expand_as(slope).double())
    assert filled.taps["half"].shape == (2, 3, 4, 3)
    assert not torch.equal(filled.taps["half"], found.taps["half"])
