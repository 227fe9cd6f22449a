from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

import kdsearch.data.scenes as drawing
from kdsearch.data.readers.scenes import DRAWING, INFO, Scenes, draw_scene
from kdsearch.data.store.file_digests import content_of

SIZE = (96, 128)
THERMAL = 3


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(0, "train", i, SIZE) for i in range(40)]


def label_agreement(scene):
    """Share of pixels whose next frame, at p + flow(p), has the label of p; where nothing hides it there.

    Pixels next to another label are left out on both sides: rounding to whole pixels decides about them.
    """
    first, second, flow = scene.first, scene.second, scene.sample.flow_hw2
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    to_x, to_y = np.rint(x + flow[..., 0]).astype(int), np.rint(y + flow[..., 1]).astype(int)
    seen = (to_x >= 0) & (to_x < SIZE[1]) & (to_y >= 0) & (to_y < SIZE[0])
    to_x, to_y = np.where(seen, to_x, 0), np.where(seen, to_y, 0)
    own_depth = first.depth_hw + first.motion_hw2[..., 1]
    slope = np.ptp(neighbours(second.depth_hw), axis=(2, 3))  # what rounding to whole pixels may change
    hidden = (second.depth_hw + slope)[to_y, to_x] < own_depth - 1e-6
    valid = seen & ~hidden & interior(first.label_hw) & interior(second.label_hw)[to_y, to_x]
    return (second.label_hw[to_y, to_x] == first.label_hw)[valid], valid


def neighbours(map_hw):
    return np.lib.stride_tricks.sliding_window_view(np.pad(map_hw, 1, mode="edge"), (3, 3))


def interior(label_hw):
    return (neighbours(label_hw) == label_hw[..., None, None]).all((2, 3))


def test_flow_carries_labels_to_the_next_frame(scenes):
    for scene in scenes:
        same, valid = label_agreement(scene)
        assert valid.mean() > 0.4
        assert same.mean() > 0.99


def test_flow_is_the_motion_of_the_surface(scenes):
    """Against the camera model: the depth at the target equals the depth that the surface has moved to."""
    for scene in scenes[:10]:
        first, second, flow = scene.first, scene.second, scene.sample.flow_hw2
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        at_x, at_y = x + flow[..., 0], y + flow[..., 1]
        distance = first.depth_hw + first.motion_hw2[..., 1] - second.camera.z
        moved_x = first.camera.world_x(x, first.depth_hw - first.camera.z) + first.motion_hw2[..., 0]
        moved_y = first.camera.world_y(y, first.depth_hw - first.camera.z)
        near = first.depth_hw < 100
        assert np.abs(second.camera.world_x(at_x, distance) - moved_x)[near].max() < 1e-3
        assert np.abs(second.camera.world_y(at_y, distance) - moved_y)[near].max() < 1e-3


def test_no_flow_without_motion(scenes):
    canvas = scenes[0].first
    canvas_flow = canvas.flow_to(canvas.camera)
    still = ~canvas.motion_hw2.any(-1)
    assert np.abs(canvas_flow[still]).max() < 1e-6


def test_classes_are_all_there_and_none_rules(scenes):
    counts = sum(np.bincount(s.sample.label_hw.ravel(), minlength=INFO.num_classes) for s in scenes)
    share = counts / counts.sum()
    assert share.max() < 0.4
    assert share.min() > 0.01


def test_people_at_night_show_in_thermal_and_hide_in_rgb(scenes):
    """Contrast of people against the rest, in standard deviations of the rest."""
    rgb, thermal = [], []
    for scene in scenes:
        person = scene.sample.label_hw == INFO.classes.index("person")
        if scene.weather.time != "night" or person.sum() < 40:
            continue
        image = scene.sample.image_hwc.astype(float)
        grey, heat = image[..., :3].mean(-1), image[..., THERMAL]
        for channel, contrasts in ((grey, rgb), (heat, thermal)):
            contrasts.append(abs(channel[person].mean() - channel[~person].mean()) / channel[~person].std())
    assert len(rgb) >= 5
    assert np.median(thermal) > 1.0
    assert np.median(thermal) > 2 * np.median(rgb)


def test_seed_split_and_index_each_change_the_scene():
    base = draw_scene(0, "train", 0, SIZE).sample.image_hwc
    for other in ((1, "train", 0), (0, "val", 0), (0, "train", 1)):
        assert (draw_scene(*other, SIZE).sample.image_hwc != base).mean() > 0.5


def test_fingerprint_holds_the_parameters():
    readers = (Scenes(), Scenes(seed=1), Scenes(train=5), Scenes(height=48))
    prints = {content_of(reader).fingerprint for reader in readers}
    assert len(prints) == 4


@pytest.mark.parametrize("size", [(32, 32), (33, 95), (240, 320)])
def test_other_sizes(size):
    sample = draw_scene(3, "val", 2, size).sample
    assert sample.image_hwc.shape == (*size, 4)
    assert sample.flow_hw2.shape == (*size, 2)


def test_a_changed_drawing_raises_its_version():
    """The content of this set is its parameters and `DRAWING`. After any edit of `data/scenes/`: raise `DRAWING` if the
    pixels differ, then put the new digest here."""
    sources = sorted(Path(drawing.__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    assert (DRAWING, digest) == (1, "a0e14a8f2ac7cdd5")
