"""One convention for the place of a map's cells: a map whose value is its coordinate stays that, whatever is done."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kdsearch.config.data import Augment
from kdsearch.data.map_grid import cell_positions, nearest_cells, resize_map
from kdsearch.data.views import next_views, random_views, warp_maps
from kdsearch.distill.ops.features import match_size
from kdsearch.distill.ops.flow import resize_flow, warp
from kdsearch.distill.ops.labels import labels_at
from kdsearch.models.networks.two_branch import at_coarser_size

IMAGE, VIEW = (48, 64), (32, 40)


def coordinates(cells: tuple[int, int], pixels: tuple[int, int] = IMAGE) -> Tensor:
    """The map `[1, 2, h, w]` whose channels are the column and the row, in pixels, at which each cell lies."""
    y, x = (cell_positions(n, of) for n, of in zip(cells, pixels, strict=True))
    return torch.stack([x.expand(cells), y[:, None].expand(cells)])[None]


def positions(theta_b23: Tensor) -> Tensor:
    """Column and row, in pixels of the image, that each pixel of a view shows, `[B, 2, h, w]`."""
    v, u = ((2 * torch.arange(n).double() + 1) / n - 1 for n in VIEW)
    here = torch.stack([u.expand(VIEW), v[:, None].expand(VIEW), torch.ones(VIEW, dtype=torch.float64)])
    size = torch.tensor(IMAGE[::-1], dtype=torch.float64)[:, None, None]
    return (torch.einsum("bij,jhw->bihw", theta_b23.double(), here) + 1) * size / 2 - 0.5


def zoomed(turned: bool) -> Tensor:
    """Views that show the image alone, and so no border value."""
    theta = random_views(3, 5, list(range(40)), IMAGE, VIEW, Augment(scale=(1.4, 2.5)))
    if turned:
        theta = next_views(theta, 3, 5, list(range(40)), VIEW, 0.3)
    place = positions(theta)
    within = (place.amin((2, 3)) >= 0).all(1) & (place[:, 0].amax((1, 2)) <= 63) & (place[:, 1].amax((1, 2)) <= 47)
    assert within.sum() >= 8
    return theta[within]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("cells", [(6, 8), (12, 16), (2, 3)])
def test_cached_logits_in_a_zoomed_view_lie_where_the_labels_do(cells: tuple[int, int], turned: bool) -> None:
    """Up-sampled to the view as the task's logits are: off by nothing, where another convention loses half a cell."""
    theta = zoomed(turned)
    whole = coordinates(cells).float().expand(len(theta), -1, -1, -1)
    seen = resize_map(warp_maps(whole, theta, (4, 5), IMAGE, VIEW), VIEW)
    torch.testing.assert_close(seen, positions(theta).float(), rtol=0, atol=2e-3)


def test_labels_at_a_map_are_those_of_its_cells() -> None:
    label = torch.arange(32 * 40).view(1, 32, 40) % 250
    for size in ((4, 5), (5, 7), (9, 3), (32, 40), (1, 1)):
        y, x = (cell_positions(n, of).add(0.5).floor().long() for n, of in zip(size, (32, 40), strict=True))
        assert torch.equal(labels_at(label, size)[0], label[:, y][:, :, x])
        assert nearest_cells(label, size).shape == (1, *size)


def test_maps_of_two_networks_are_compared_at_the_same_places() -> None:
    coarse, fine = (coordinates(cells) for cells in ((6, 8), (12, 16)))
    for matched in (match_size(coarse, fine), match_size(fine, coarse)):
        torch.testing.assert_close(*matched, rtol=0, atol=1e-11)
    for matched in (at_coarser_size(coordinates((3, 4)), coordinates((5, 7))),):
        torch.testing.assert_close(*matched, rtol=0, atol=1e-11)


def test_a_flow_on_a_coarser_map_leads_to_the_same_place() -> None:
    flow = torch.zeros(1, 2, *IMAGE, dtype=torch.float64)
    flow[:, 0], flow[:, 1] = 7, -5
    map_b2hw = coordinates((12, 16))
    moved = warp(map_b2hw, resize_flow(flow, (12, 16)))[..., 2:, :-2] - map_b2hw[..., 2:, :-2]
    torch.testing.assert_close(moved[:, 0], torch.full_like(moved[:, 0], 7.0))
    torch.testing.assert_close(moved[:, 1], torch.full_like(moved[:, 1], -5.0))


def test_the_outer_cells_lie_on_the_outer_pixels() -> None:
    assert cell_positions(3, 65).tolist() == [0, 32, 64]
    assert cell_positions(1, 9).tolist() == [4]
