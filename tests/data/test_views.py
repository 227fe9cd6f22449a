from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from kdsearch.compat import ensure_torchvision
from kdsearch.config.data import Augment
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.views import (
    BRIGHTNESS,
    CONTRAST,
    SATURATION,
    THERMAL,
    _uniform,
    flow_between,
    flow_of_view,
    identity_views,
    inside,
    next_views,
    photometric,
    random_views,
    warp_images,
    warp_labels,
    warp_maps,
)

SIZE, CROP = (37, 52), (29, 40)
AUGMENT = Augment()


def views(indices=range(12), size=SIZE, crop=CROP, augment=AUGMENT, seed=3, epoch=5):
    return random_views(seed, epoch, list(indices), size, crop, augment)


def source_positions(theta_23, size, out_size):
    """Continuous pixel position (x, y) in the source of every pixel of a view, by loops over the definition."""
    (height, width), (out_height, out_width) = size, out_size
    positions = np.zeros((*out_size, 2))
    t = theta_23.double().numpy()
    for row in range(out_height):
        for column in range(out_width):
            u, v = (2 * column + 1) / out_width - 1, (2 * row + 1) / out_height - 1
            positions[row, column] = (
                (t[0, 0] * u + t[0, 1] * v + t[0, 2] + 1) * (width / 2),
                (t[1, 0] * u + t[1, 1] * v + t[1, 2] + 1) * (height / 2),
            )
    return positions


def test_labels_are_exact_to_the_pixel():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 9, (12, *SIZE)).astype(np.uint8)
    theta = views()
    warped = warp_labels(torch.from_numpy(labels), theta, CROP).numpy()
    assert warped.dtype == np.uint8
    for b in range(12):
        x, y = np.floor(source_positions(theta[b], SIZE, CROP)).astype(int).transpose(2, 0, 1)
        inside = (x >= 0) & (x < SIZE[1]) & (y >= 0) & (y < SIZE[0])
        expected = np.full(CROP, IGNORE_INDEX)
        expected[inside] = labels[b][y[inside], x[inside]]
        assert np.array_equal(warped[b], expected)
    assert (warped == IGNORE_INDEX).any()
    assert (warped != IGNORE_INDEX).any()


def test_images_are_bilinear_with_zeros_outside():
    image = torch.rand(12, 4, *SIZE)
    theta = views()
    warped = warp_images(image, theta, CROP)
    padded = np.pad(image.double().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for b in range(12):
        position = source_positions(theta[b], SIZE, CROP) - 0.5
        base = np.floor(position).astype(int)
        ax, ay = (position - base).transpose(2, 0, 1)
        expected = np.zeros((4, *CROP))
        for dx, dy, weight in (
            (0, 0, (1 - ax) * (1 - ay)),
            (1, 0, ax * (1 - ay)),
            (0, 1, (1 - ax) * ay),
            (1, 1, ax * ay),
        ):
            x, y = np.clip(base[..., 0] + dx, -1, SIZE[1]) + 1, np.clip(base[..., 1] + dy, -1, SIZE[0]) + 1
            expected += weight * padded[b][:, y, x]
        assert np.abs(warped[b].numpy() - expected).max() < 2e-4


def test_labels_and_images_show_the_same_view():
    """An image of class colours, warped and rounded, gives the labels wherever it is far from edges."""
    label = torch.randint(0, 2, (12, 6, 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    theta = views(size=(48, 64), crop=(48, 64))
    soft = warp_images(label[:, None].float() + 1, theta, (48, 64))[:, 0]
    hard = warp_labels(label, theta, (48, 64))
    sure = (soft - soft.round()).abs() < 1e-3
    inside = hard != IGNORE_INDEX
    assert (sure & inside).float().mean() > 0.4
    assert torch.equal((soft.round().long() - 1)[sure & inside], hard[sure & inside])


def test_a_map_of_another_stride_shows_the_same_view():
    lots = torch.Generator().manual_seed(0)  # one map in ten is rough enough to differ by more than the bound
    coarse = torch.rand(12, 1, 4, 5, generator=lots)
    smooth = functional.interpolate(coarse, (64, 80), mode="bicubic", align_corners=True)
    theta = views(size=(64, 80), crop=(64, 80), augment=Augment(scale=(1.0, 1.5)))
    coarse_then_warp = warp_images(functional.avg_pool2d(smooth, 4), theta, (16, 20))
    warp_then_coarse = functional.avg_pool2d(warp_images(smooth, theta, (64, 80)), 4)
    inner = (..., slice(2, -2), slice(2, -2))
    assert (coarse_then_warp - warp_then_coarse)[inner].abs().max() < 0.03


def test_identity():
    still = Augment(scale=(1.0, 1.0), flip=0.0)
    theta = views(size=SIZE, crop=SIZE, augment=still)
    assert torch.equal(theta, identity_views(12))
    image, label = torch.rand(12, 3, *SIZE), torch.randint(0, 9, (12, *SIZE))
    assert (warp_images(image, theta, SIZE) - image).abs().max() < 1e-5
    assert torch.equal(warp_labels(label, theta, SIZE), label)


def test_flip():
    theta = views(size=SIZE, crop=SIZE, augment=Augment(scale=(1.0, 1.0), flip=1.0))
    label = torch.randint(0, 9, (12, *SIZE))
    assert torch.equal(warp_labels(label, theta, SIZE), label.flip(2))


def test_crop_without_zoom_is_a_slice():
    theta = views(size=SIZE, crop=CROP, augment=Augment(scale=(1.0, 1.0), flip=0.0))
    label = torch.arange(SIZE[0] * SIZE[1]).view(1, *SIZE).repeat(12, 1, 1)
    warped = warp_labels(label, theta, CROP)
    assert ((warped[:, :, 1:] - warped[:, :, :-1]) == 1).all()
    assert ((warped[:, 1:] - warped[:, :-1]) == SIZE[1]).all()


def test_zoom_out_leaves_a_border_and_zoom_in_none():
    label = torch.zeros(12, *SIZE, dtype=torch.long)
    out = warp_labels(label, views(size=SIZE, crop=SIZE, augment=Augment(scale=(0.5, 0.5))), SIZE)
    assert (out == IGNORE_INDEX).float().mean().item() == pytest.approx(0.75, abs=0.05)
    closer = warp_labels(label, views(size=SIZE, crop=SIZE, augment=Augment(scale=(1.2, 2.0))), SIZE)
    assert (closer != IGNORE_INDEX).all()


def test_lots_do_not_depend_on_the_batch():
    together = views(range(12))
    assert torch.equal(views([7, 2]), together[[7, 2]])
    image = torch.rand(12, 4, 6, 8)
    jittered = photometric(image, 3, 5, list(range(12)), 0.5)
    assert (photometric(image[[7, 2]], 3, 5, [7, 2], 0.5) - jittered[[7, 2]]).abs().max() < 1e-6


def test_lots_differ_by_seed_epoch_and_index():
    flat = {tuple(views([i], seed=s, epoch=e).flatten().tolist()) for s in range(4) for e in range(4) for i in range(4)}
    assert len(flat) == 64


def test_lots_are_uniform():
    numbers = _uniform(0, 0, np.arange(20000), 0)
    assert np.abs(np.histogram(numbers, 10, (0, 1))[0] / 2000 - 1).max() < 0.1
    other = _uniform(0, 0, np.arange(20000), 1)
    assert abs(np.corrcoef(numbers, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.03


def test_flow_between_views_is_exact():
    a, b = views(seed=1), views(seed=2)
    flow = flow_between(a, b, CROP)
    for i in range(12):
        in_source = source_positions(a[i], SIZE, CROP)
        t = b[i].double().numpy()
        for axis in (0, 1):
            normalised = in_source[..., axis] * 2 / SIZE[1 - axis] - 1
            in_b = (normalised - t[axis, 2]) / t[axis, axis]  # scale and shift: t has no rotation
            pixel = (in_b + 1) * CROP[1 - axis] / 2 - 0.5
            here = np.arange(CROP[1 - axis])
            expected = pixel - (here if axis == 0 else here[:, None])
            assert np.abs(flow[i, axis].numpy() - expected).max() < 1e-4


def later_views(theta, motion=0.3, crop=CROP):
    return next_views(theta, 3, 5, list(range(len(theta))), crop, motion)


def test_labels_of_a_second_view_are_exact_to_the_pixel():
    """As of the first, though a second view is turned; a strong motion, so that all of it counts."""
    labels = np.random.default_rng(0).integers(0, 9, (12, *SIZE)).astype(np.uint8)
    theta = later_views(views())
    assert theta[:, 0, 1].abs().max() > 0.1
    warped = warp_labels(torch.from_numpy(labels), theta, CROP).numpy()
    for b in range(12):
        x, y = np.floor(source_positions(theta[b], SIZE, CROP)).astype(int).transpose(2, 0, 1)
        inside = (x >= 0) & (x < SIZE[1]) & (y >= 0) & (y < SIZE[0])
        expected = np.full(CROP, IGNORE_INDEX)
        expected[inside] = labels[b][y[inside], x[inside]]
        assert np.array_equal(warped[b], expected)


def test_flow_to_a_second_view_is_exact():
    """Pixel p of the first and p + flow(p) of the second view lie at the same place of the source, to 1e-4 pixels."""
    first = views()
    second = later_views(first)
    flow = flow_between(first, second, CROP).double().numpy()
    y, x = np.indices(CROP)
    for b in range(12):
        at = np.stack([x, y]) + flow[b]
        unit = np.stack([(2 * at[axis] + 1) / CROP[1 - axis] - 1 for axis in (0, 1)])
        matrix = second[b].double().numpy()
        source = np.einsum("ij,jhw->ihw", matrix[:, :2], unit) + matrix[:, 2, None, None]
        there = np.stack([(source[axis] + 1) * SIZE[1 - axis] / 2 for axis in (0, 1)], -1)
        zoom = SIZE[0] * abs(matrix[1, 1]) / CROP[0]  # source pixels a pixel of the view
        assert np.abs(there - source_positions(first[b], SIZE, CROP)).max() < 1e-4 * zoom
        assert np.abs(flow[b]).max() > 0.5


def test_a_second_view_moves_as_told():
    """In pixels it is a rotation, a zoom and a shift within their bounds, of views that are not flipped."""
    first = identity_views(200)
    motion, (height, width) = 0.2, CROP
    second = next_views(first, 0, 0, list(range(200)), CROP, motion).double()
    pixels = torch.diag(torch.tensor([width / 2, height / 2], dtype=torch.float64))
    linear = pixels @ second[:, :, :2] @ torch.linalg.inv(pixels)
    scale = torch.linalg.det(linear).sqrt()
    turned = linear / scale[:, None, None]
    assert (turned @ turned.mT - torch.eye(2)).abs().max() < 1e-5
    assert (scale <= 1 + motion + 1e-6).all()
    assert (scale >= 1 / (1 + motion) - 1e-6).all()
    angle = torch.atan2(turned[:, 1, 0], turned[:, 0, 0])
    assert 0.9 * motion < angle.abs().max() <= motion + 1e-6
    assert 0.9 * 2 * motion < second[:, :, 2].abs().max() <= 2 * motion + 1e-6


def test_flow_between_equal_views_is_zero():
    assert flow_between(views(), views(), CROP).abs().max() < 1e-6


def test_flow_seen_through_a_view():
    """A uniform flow: zoom multiplies it, a flip negates its x."""
    flow = torch.tensor([3.0, -2.0])[None, :, None, None].expand(12, 2, *SIZE)
    theta = views()
    seen = flow_of_view(flow, theta, CROP)
    label = warp_labels(torch.zeros(12, *SIZE, dtype=torch.long), theta, CROP)
    for i in range(12):
        zoom = CROP[0] / (theta[i, 1, 1] * SIZE[0])
        sign = theta[i, 0, 0].sign()
        inside = label[i] != IGNORE_INDEX
        assert seen[i, 0][inside] == pytest.approx((3 * zoom * sign).item(), abs=1e-4)
        assert seen[i, 1][inside] == pytest.approx((-2 * zoom).item(), abs=1e-4)


def test_jitter_equals_torchvision():
    ensure_torchvision()
    from torchvision.transforms.v2 import functional as reference

    image, strength, indices = torch.rand(6, 4, 9, 11), 0.5, list(range(6))
    jittered = photometric(image, 1, 2, indices, strength)
    factors = {lot: 1 + strength * (2 * _uniform(1, 2, indices, lot) - 1) for lot in range(8)}
    for i in indices:
        rgb = reference.adjust_brightness(image[i, :3], factors[BRIGHTNESS][i])
        rgb = reference.adjust_contrast(rgb, factors[CONTRAST][i])
        rgb = reference.adjust_saturation(rgb, factors[SATURATION][i])
        assert (jittered[i, :3] - rgb).abs().max() < 1e-5
        thermal = (image[i, 3] * factors[THERMAL][i]).clamp(0, 1)
        assert (jittered[i, 3] - thermal).abs().max() < 1e-6


def test_jitter_of_three_channels_and_of_no_strength():
    image = torch.rand(2, 3, 5, 5)
    assert photometric(image, 0, 0, [0, 1], 0.3).shape == image.shape
    assert torch.equal(photometric(image, 0, 0, [0, 1], 0.0), image)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_views():
    label, image, theta = torch.randint(0, 9, (12, *SIZE)), torch.rand(12, 4, *SIZE), views()
    assert torch.equal(warp_labels(label.cuda(), theta.cuda(), CROP).cpu(), warp_labels(label, theta, CROP))
    assert (warp_images(image.cuda(), theta.cuda(), CROP).cpu() - warp_images(image, theta, CROP)).abs().max() < 1e-3


def test_a_flipped_view_shows_flipped_maps():
    whole = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    theta = identity_views(2).clone()
    theta[:, 0, 0] = -1
    torch.testing.assert_close(warp_maps(whole, theta, (4, 6), SIZE, SIZE), whole.flip(3), atol=1e-5, rtol=1e-5)


def test_valid_pixels_of_a_map_do_not_see_beyond_the_image():
    """A constant map stays constant up to the border of the image, and so do distributions that are kept as logs."""
    theta = identity_views(1) * 1.7
    torch.testing.assert_close(
        warp_maps(torch.full((1, 2, 4, 6), -3.0), theta, (8, 8), SIZE, SIZE),
        torch.full((1, 2, 8, 8), -3.0),
        rtol=1e-6,
        atol=0,
    )


@pytest.mark.parametrize("turned", [False, True])
def test_a_view_knows_which_of_its_pixels_show_the_image(turned):
    theta = later_views(views()) if turned else views(augment=Augment(scale=(0.3, 2.0)))
    shown = inside(theta, SIZE, CROP)
    assert 0 < (~shown).float().mean() < 1
    label = torch.zeros(12, *SIZE, dtype=torch.uint8)
    assert torch.equal(shown, warp_labels(label, theta, CROP) == 0)
    assert inside(views(augment=Augment(scale=(1.2, 2.0))), SIZE, CROP) is None
