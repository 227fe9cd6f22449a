"""Fast views on the CPU against the general ones, which are tested against NumPy in `test_views.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdsearch.config.data import Augment, DataConfig
from kdsearch.data import loader, views
from kdsearch.data.axis_views import bilinear_images, without_rotation
from kdsearch.data.colours import finish, grey_mean
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.loader import Batches
from kdsearch.data.views import identity_views, jitter_factors, next_views, photometric, random_views, warp_images

SIZE = (37, 52)
INDICES = list(range(12))
MEAN, STD = torch.rand(4, 1, 1), torch.rand(4, 1, 1) + 0.2


def byte_images(channels, size=SIZE):
    return np.random.default_rng(1).integers(0, 256, (len(INDICES), *size, channels), dtype=np.uint8)


def fast(images, theta, crop, strength, indices=INDICES):
    channels = images.shape[3]
    factors = jitter_factors(3, 5, indices, strength) if strength else [None] * len(indices)

    def finished(b, part):
        finish(part, images[b], factors[b], MEAN[:channels], STD[:channels])

    return bilinear_images(images, theta, crop, finished)


def general(images, theta, crop, strength):
    channels = images.shape[3]
    unit = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    whole = (photometric(unit, 3, 5, INDICES, strength) - MEAN[:channels]) / STD[:channels]
    return warp_images(whole.double(), theta, crop)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("crop", [SIZE, (29, 40), (64, 20)])
@pytest.mark.parametrize("scale", [(0.3, 0.6), (0.5, 2.0), (1.0, 1.0), (3.0, 5.0)])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_images_are_those_of_the_general_way(channels, crop, scale, strength):
    images = byte_images(channels)
    theta = random_views(3, 5, INDICES, SIZE, crop, Augment(scale=scale))
    got, expected = fast(images, theta, crop, strength), general(images, theta, crop, strength)
    assert got.dtype == torch.float32
    assert (got - expected).abs().max() < 1e-4


def test_labels_are_those_of_the_general_way(monkeypatch):
    label = torch.randint(0, 9, (12, *SIZE))
    for scale in ((0.3, 0.6), (0.5, 2.0), (3.0, 5.0)):
        theta = random_views(3, 5, INDICES, SIZE, (29, 40), Augment(scale=scale))
        got = views.warp_labels(label, theta, (29, 40))
        with monkeypatch.context() as patch:
            patch.setattr(views, "without_rotation", lambda theta: False)
            assert torch.equal(views.warp_labels(label, theta, (29, 40)), got)


def test_a_view_beside_the_image_shows_nothing():
    theta = identity_views(12).clone()
    theta[:, 0, 2] = 5.0
    assert (fast(byte_images(3), theta, SIZE, 0.0) == 0).all()
    assert (views.warp_labels(torch.zeros(12, *SIZE, dtype=torch.long), theta, SIZE) == IGNORE_INDEX).all()


def test_an_image_does_not_depend_on_its_batch():
    images, crop = byte_images(3), (29, 40)
    theta = random_views(3, 5, INDICES, SIZE, crop, Augment())
    together = fast(images, theta, crop, 0.5)
    for b in INDICES:
        assert torch.equal(fast(images[b : b + 1], theta[b : b + 1], crop, 0.5, [b])[0], together[b])


@pytest.mark.parametrize("brightness", [0.0, 0.3, 1.0, 1.17, 2.0])
@pytest.mark.parametrize("height", [37, 256, 600])
def test_the_mean_of_grey(brightness, height):
    (image, *_) = byte_images(4, (height, 20))
    bright = (image[..., :3] / 255 * brightness).clip(max=1)
    assert grey_mean(image, brightness) == pytest.approx((bright @ views.GREY).mean(), abs=1e-12)


def test_second_views_are_turned():
    theta = random_views(3, 5, INDICES, SIZE, SIZE, Augment())
    assert without_rotation(theta)
    assert not without_rotation(next_views(theta, 3, 5, INDICES, SIZE, 0.1))


@pytest.mark.parametrize("frames", [None, "video", "views"])
def test_batches_are_those_of_the_general_way(scenes_store, monkeypatch, frames):
    config = DataConfig(name="scenes", size=(48, 64), crop=(32, 40))

    def batches():
        batches = Batches(scenes_store.split("train"), scenes_store.info, config, 4, 0, frames=frames)
        return [*batches.train(1), *batches.val()]

    got = batches()
    monkeypatch.setattr(loader, "without_rotation", lambda theta: False)
    for a, b in zip(got, batches(), strict=True):
        assert torch.equal(a.label_bhw, b.label_bhw)
        assert (a.image_bchw - b.image_bchw).abs().max() < 1e-3
        if frames:
            assert (a.next_image_bchw is None) == (b.next_image_bchw is None)
        if a.next_image_bchw is not None:
            assert (a.next_image_bchw - b.next_image_bchw).abs().max() < 1e-3


def test_batches_do_not_depend_on_the_number_of_threads(scenes_store):
    """Large enough that torch would divide the work."""
    config = DataConfig(name="scenes", size=(48, 64), crop=(480, 640))

    def images():
        loader = Batches(scenes_store.split("train"), scenes_store.info, config, 4, 0)
        return torch.cat([batch.image_bchw for batch in loader.train(0)])

    threads, alone = torch.get_num_threads(), images()
    try:
        torch.set_num_threads(3 if threads != 3 else 2)
        assert torch.equal(images(), alone)
    finally:
        torch.set_num_threads(threads)
