from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kdsearch.distill.base import FramePair
from kdsearch.distill.ops.flow import correspondence, in_frame, occlusion_weight, resize_flow, warp
from kdsearch.models.seg_output import SegOutput
from tests.distill.terms import reference_stc as reference

GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


def still(*size: int, batch: int = 2) -> Tensor:
    return torch.zeros(batch, 2, *size, dtype=torch.float64)


@pytest.mark.parametrize("size", [(4, 5), (1, 7), (37, 53)])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_zero_flow_is_the_identity(size: tuple[int, int], dtype: torch.dtype, atol: float) -> None:
    picture = draw(2, 3, *size).to(dtype)
    torch.testing.assert_close(warp(picture, still(*size).to(dtype)), picture, rtol=0, atol=atol)


@pytest.mark.parametrize(("x", "y"), [(1, 0), (0, -2), (2, 1)])
def test_whole_pixels_shift_exactly(x: int, y: int) -> None:
    picture, flow = draw(2, 3, 6, 9), still(6, 9)
    flow[:, 0], flow[:, 1] = x, y
    shifted = picture.roll((-y, -x), (2, 3))
    kept = in_frame(flow)
    assert torch.equal(kept, still(6, 9)[:, 0].bool() | kept[0])
    assert kept.sum() == 2 * (6 - abs(y)) * (9 - abs(x))
    torch.testing.assert_close(
        torch.where(kept[:, None], warp(picture, flow), 0), torch.where(kept[:, None], shifted, 0), rtol=0, atol=1e-13
    )


def test_warp_equals_its_loop_inside_and_beyond_the_border() -> None:
    picture, flow = draw(2, 3, 4, 5), 3 * draw(2, 2, 4, 5)
    assert not in_frame(flow).all()
    torch.testing.assert_close(warp(picture, flow), reference.warp(picture, flow), rtol=1e-12, atol=1e-12)
    for b in range(2):
        for i in range(4):
            for j in range(5):
                assert in_frame(flow)[b, i, j] == reference.inside(flow, b, i, j)


def test_flipping_both_frames_flips_the_result_when_u_is_negated() -> None:
    picture, flow = draw(2, 3, 4, 5), draw(2, 2, 4, 5)
    mirrored = flow.flip(3) * torch.tensor([-1.0, 1.0], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(warp(picture.flip(3), mirrored), warp(picture, flow).flip(3), rtol=0, atol=1e-12)
    assert torch.equal(in_frame(mirrored), in_frame(flow).flip(2))


def test_a_flow_on_a_coarser_map_is_in_its_pixels() -> None:
    flow = still(8, 12)
    flow[:, 0], flow[:, 1] = 4, -6
    coarse = resize_flow(flow, (4, 3))
    assert coarse.shape == (2, 2, 4, 3)
    torch.testing.assert_close(coarse[:, 0], torch.full_like(coarse[:, 0], 4 * 2 / 11))  # two steps for eleven
    torch.testing.assert_close(coarse[:, 1], torch.full_like(coarse[:, 1], -6 * 3 / 7))
    assert resize_flow(flow, (8, 12)) is flow


class TestOcclusionWeight:
    def test_equals_its_loop_and_lies_in_0_1(self) -> None:
        image, later, flow = draw(2, 3, 4, 5), draw(2, 3, 4, 5), draw(2, 2, 4, 5)
        weight = occlusion_weight(image, later, flow)
        assert ((weight > 0) & (weight <= 1)).all()
        torch.testing.assert_close(weight, reference.visibility(image, later, flow), rtol=1e-12, atol=1e-12)

    def test_is_1_for_frames_that_are_the_same(self) -> None:
        image = draw(2, 3, 4, 5)
        torch.testing.assert_close(occlusion_weight(image, image, still(4, 5)), torch.ones(2, 4, 5).double())

    def test_opposite_differences_of_channels_cancel(self) -> None:
        image, later = torch.zeros(1, 2, 1, 1), torch.tensor([3.0, -3.0]).view(1, 2, 1, 1)
        assert occlusion_weight(image, later, torch.zeros(1, 2, 1, 1)).item() == 1


def test_correspondence_at_half_the_size() -> None:
    image, later, flow = draw(2, 3, 8, 6), draw(2, 3, 8, 6) / 3, draw(2, 2, 8, 6)
    nothing = SegOutput(draw(2, 4, 4, 3))
    small_flow, weight, inside = correspondence(FramePair(nothing, nothing, flow, image, later), nothing.logits)
    wanted_flow, wanted_weight = reference.halved(image, later, flow)
    torch.testing.assert_close(small_flow, wanted_flow, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weight, wanted_weight, rtol=1e-12, atol=1e-12)
    assert torch.equal(inside, in_frame(small_flow))
