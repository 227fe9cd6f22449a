from __future__ import annotations

import numpy as np
import pytest
import torch

from kdsearch.config.data import Augment, DataConfig
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.loader import Batches
from kdsearch.data.store.store import build_store
from kdsearch.data.views import warp_images, warp_labels
from kdsearch.errors import UserError

CONFIG = DataConfig(name="scenes", size=(48, 64), crop=(32, 40))
STILL = DataConfig(name="scenes", size=(48, 64), augment=Augment(scale=(1.0, 1.0), flip=0.0, jitter=0.0))


def batches(store, split="train", config=CONFIG, batch_size=4, seed=0, **kwargs):
    return Batches(store.split(split), store.info, config, batch_size, seed, **kwargs)


def test_shapes_and_types(scenes_store):
    loader = batches(scenes_store)
    steps = list(loader.train(0))
    assert len(steps) == loader.steps_per_epoch == 2
    for batch in steps:
        assert batch.image_bchw.shape == (4, 4, 32, 40)
        assert batch.image_bchw.dtype == torch.float32
        assert batch.label_bhw.shape == (4, 32, 40)
        assert batch.label_bhw.dtype == batch.index.dtype == torch.int64
        assert batch.theta_b23.shape == (4, 2, 3)
        valid = batch.label_bhw[batch.label_bhw != IGNORE_INDEX]
        assert valid.max() < scenes_store.info.num_classes
        assert batch.next_image_bchw is None


def test_an_untouched_view_is_the_normalised_image(scenes_store):
    info, split = scenes_store.info, scenes_store.split("train")
    for batch in batches(scenes_store, config=STILL).train(3):
        expected = (split.images[batch.index.numpy()] / 255 - np.array(info.mean)) / np.array(info.std)
        assert np.abs(batch.image_bchw.permute(0, 2, 3, 1).numpy() - expected).max() < 1e-3
        assert np.array_equal(batch.label_bhw.numpy(), split.labels[batch.index.numpy()])


def test_the_border_has_the_mean_colour(scenes_store):
    config = CONFIG.model_copy(update={"augment": Augment(scale=(0.3, 0.3), jitter=0.5)})
    batch = next(batches(scenes_store, config=config).train(0))
    outside = (batch.label_bhw == IGNORE_INDEX)[:, None].expand_as(batch.image_bchw)
    assert outside.float().mean() > 0.3
    assert (batch.image_bchw[outside] == 0).float().mean() > 0.9  # all but the rim, where bilinear mixes


def test_a_batch_knows_which_of_its_pixels_show_the_image(scenes_store):
    """Of the later frame, too; and None stands for all."""
    small = CONFIG.model_copy(update={"augment": Augment(scale=(0.3, 0.5), motion=0.3)})
    batch = next(batches(scenes_store, config=small, frames="views").train(0))
    blank = torch.zeros(4, *scenes_store.size, dtype=torch.uint8)
    for theta, shown in (
        (batch.theta_b23, batch.inside_bhw),
        (batch.next_theta_b23, batch.next_inside_bhw),
    ):
        assert torch.equal(shown, warp_labels(blank, theta, (32, 40)) == 0)
        assert not shown.all()
    assert [part.inside_bhw.shape for part in batch.tensor_split(2)] == [(2, 32, 40)] * 2
    large = CONFIG.model_copy(update={"augment": Augment(scale=(1.0, 2.0))})
    assert next(batches(scenes_store, config=large).train(0)).inside_bhw is None


def test_theta_is_the_view_that_was_taken(scenes_store):
    config = CONFIG.model_copy(update={"augment": Augment(jitter=0.0)})
    loader = batches(scenes_store, config=config)
    whole = {int(b.index[0]): b.image_bchw[0] for b in batches(scenes_store, batch_size=1).val()}
    for batch in loader.train(1):
        source = torch.stack([whole[int(i)] for i in batch.index])
        assert torch.allclose(warp_images(source, batch.theta_b23, (32, 40)), batch.image_bchw, atol=1e-4)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_validation_sees_every_image_once(scenes_store, world_size):
    seen = []
    for rank in range(world_size):
        loader = batches(scenes_store, "val", batch_size=6, rank=rank, world_size=world_size)
        for batch in loader.val():
            assert len(batch.image_bchw) <= 6 // world_size
            seen += batch.index.tolist()
    assert seen == list(range(7))


def test_more_ranks_than_images(scenes_store):
    parts = [list(batches(scenes_store, "val", batch_size=9, rank=r, world_size=9).val()) for r in range(9)]
    assert [b.index.tolist() for part in parts for b in part] == [[i] for i in range(7)]


@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_ranks_sees_the_same_global_batches(scenes_store, world_size):
    alone = list(batches(scenes_store, batch_size=6).train(2))
    ranks = [
        list(batches(scenes_store, batch_size=6, rank=rank, world_size=world_size).train(2))
        for rank in range(world_size)
    ]
    assert {len(steps) for steps in ranks} == {len(alone)}
    for step, batch in enumerate(alone):
        parts = [steps[step] for steps in ranks]
        assert torch.equal(torch.cat([p.index for p in parts]), batch.index)
        assert torch.equal(torch.cat([p.label_bhw for p in parts]), batch.label_bhw)
        assert torch.allclose(torch.cat([p.image_bchw for p in parts]), batch.image_bchw, atol=1e-5)


def test_epochs_and_seeds_differ_and_repeat(scenes_store):
    def order(seed, epoch):
        return [b.index.tolist() for b in batches(scenes_store, seed=seed).train(epoch)]

    assert order(0, 1) == order(0, 1)
    assert len({str(order(s, e)) for s in range(3) for e in range(3)}) == 9
    first, again = (next(batches(scenes_store).train(4)) for _ in range(2))
    assert torch.equal(first.image_bchw, again.image_bchw)


def test_no_image_twice_in_an_epoch(scenes_store):
    indices = [i for b in batches(scenes_store, batch_size=3).train(0) for i in b.index.tolist()]
    assert len(indices) == len(set(indices)) == 9


def test_a_split_smaller_than_a_batch_repeats(scenes_store):
    loader = batches(scenes_store, batch_size=24)
    (batch,) = loader.train(0)
    assert loader.steps_per_epoch == 1
    assert len(batch.index) == 24
    assert set(batch.index.tolist()) == set(range(10))


def test_batch_size_must_divide(scenes_store):
    with pytest.raises(UserError, match="batch size 5 does not divide over 2 workers; use 4"):
        batches(scenes_store, batch_size=5, world_size=2)


class Ramps:
    """A split of 8 equal frame pairs that move by (5, -3) pixels."""

    def __init__(self, store, image, behind):
        self.store = store
        self.images, self.next_images = np.repeat(image[None], 8, 0), np.repeat(behind[None], 8, 0)
        self.labels = np.zeros(self.images.shape[:3], np.uint8)
        self.flows = np.broadcast_to(np.array([5.0, -3.0], np.float32), (*self.labels.shape, 2))

    def __len__(self):
        return len(self.images)


class TestFrames:
    def test_next_frame_shares_the_view(self, scenes_store):
        split = scenes_store.split("train")
        (batch, *_) = batches(scenes_store, config=STILL, frames="video").train(0)
        rows = batch.index.numpy()
        mean, std = np.array(scenes_store.info.mean), np.array(scenes_store.info.std)
        expected = (split.next_images[rows] / 255 - mean) / std
        assert np.abs(batch.next_image_bchw.permute(0, 2, 3, 1).numpy() - expected).max() < 1e-3
        assert np.allclose(batch.flow_b2hw.permute(0, 2, 3, 1).numpy(), split.flows[rows], atol=1e-4)

    def test_flow_leads_to_the_same_place_in_random_views(self, scenes_store):
        """On ramps, where bilinear is exact: the next frame, fetched at p + flow(p), is the first frame."""
        y, x = np.mgrid[:48, :64]
        image = np.stack([3 * x, 4 * y, x + y, x], -1).astype(np.uint8)
        behind = np.stack([3 * (x - 5) + 15, 4 * (y + 3), x + y, x], -1).astype(np.uint8)
        split = Ramps(scenes_store, image, behind)
        config = CONFIG.model_copy(update={"augment": Augment(scale=(1.0, 2.0), jitter=0.0)})
        (batch,) = Batches(split, scenes_store.info, config, 8, 0, frames="video").train(0)
        std = torch.tensor(scenes_store.info.std)[:, None, None]
        height, width = batch.label_bhw.shape[1:]
        v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        at = torch.stack([u, v]) + batch.flow_b2hw
        grid = (2 * at + 1) / torch.tensor([width, height])[:, None, None] - 1
        back = torch.nn.functional.grid_sample(batch.next_image_bchw, grid.permute(0, 2, 3, 1), align_corners=False)
        inside = (grid.abs() < 0.9).all(1)
        difference = ((back - batch.image_bchw) * std * 255).permute(0, 2, 3, 1)[inside]
        assert len(difference) > 1000
        assert (difference[:, 0] - 15).abs().max() < 0.05  # red is 15 brighter behind
        assert difference[:, 1].abs().max() < 0.05

    def test_two_views_of_one_image_and_their_exact_flow(self, scenes_store):
        """On a ramp, where bilinear is exact: the second view, fetched at p + flow(p), is the first view."""
        y, x = np.mgrid[:48, :64]
        image = np.stack([3 * x, 4 * y, x + y, x], -1).astype(np.uint8)
        split = Ramps(scenes_store, image, image)
        augment = Augment(scale=(1.5, 2.0), jitter=0.0, motion=0.1)
        config = CONFIG.model_copy(update={"augment": augment})
        (batch,) = Batches(split, scenes_store.info, config, 8, 0, frames="views").train(0)
        assert batch.flow_b2hw.abs().amax((1, 2, 3)).min() > 0.5  # each of them moves
        std = torch.tensor(scenes_store.info.std)[:, None, None]
        height, width = batch.label_bhw.shape[1:]
        v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        at = torch.stack([u, v]) + batch.flow_b2hw
        grid = (2 * at + 1) / torch.tensor([width, height])[:, None, None] - 1
        back = torch.nn.functional.grid_sample(batch.next_image_bchw, grid.permute(0, 2, 3, 1), align_corners=False)
        difference = ((back - batch.image_bchw) * std * 255).permute(0, 2, 3, 1)[(grid.abs() < 0.95).all(1)]
        assert len(difference) > 1000
        assert difference.abs().quantile(0.99) < 0.05

    def test_second_views_depend_on_seed_epoch_and_index_alone(self, scenes_store):
        one, other = (
            {int(i): image for b in batches(scenes_store, config=CONFIG, batch_size=size, frames="views").train(3)
             for i, image in zip(b.index, b.next_image_bchw, strict=True)}
            for size in (2, 4)
        )  # fmt: skip
        shared = one.keys() & other.keys()
        assert shared
        assert all(torch.equal(one[i], other[i]) for i in shared)

    def test_batches_split_with_all_their_columns(self, scenes_store):
        (batch, *_) = batches(scenes_store, config=CONFIG, frames="views").train(0)
        parts = batch.tensor_split(2)
        assert torch.equal(torch.cat([part.flow_b2hw for part in parts]), batch.flow_b2hw)
        assert torch.equal(torch.cat([part.index for part in parts]), batch.index)
        plain = next(iter(batches(scenes_store, config=CONFIG).train(0))).tensor_split(2)
        assert plain[0].next_image_bchw is None

    def test_still_sets_are_refused(self, mfnet_folder, tmp_path):
        config = DataConfig(name="mfnet", path=str(mfnet_folder), size=(24, 32))
        with pytest.raises(UserError, match="no next frames"):
            batches(build_store(config, tmp_path / "s"), config=config, frames="video")
