from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from kdsearch.compat import ensure_torchvision
from kdsearch.data.optical_flow import Dis, open_flow
from kdsearch.errors import UserError


def textured(size=(144, 192), seed=0):
    noise = np.random.default_rng(seed).normal(size=(*size, 3))
    smooth = sum(gaussian_filter(noise, (s, s, 0)) * s for s in (1.5, 4, 10))
    return np.clip((smooth - smooth.min()) / np.ptp(smooth) * 255, 0, 255).astype(np.uint8)


def views(motion, size=(96, 128), margin=16):
    """Two views of one picture: what is at p in the first is at p + `motion` (x, y) in the second."""
    picture = textured((size[0] + 2 * margin, size[1] + 2 * margin))
    x, y = motion
    first = picture[margin : margin + size[0], margin : margin + size[1]]
    second = picture[margin - y : margin - y + size[0], margin - x : margin - x + size[1]]
    return np.ascontiguousarray(first), np.ascontiguousarray(second)


@pytest.mark.parametrize("motion", [(3, -2), (-5, 4), (0, 0)])
def test_dis_finds_a_known_motion(motion):
    flow = Dis()(*views(motion))
    assert flow.shape == (96, 128, 2)
    assert flow.dtype == np.float32
    errors = np.abs(flow - np.array(motion, np.float32))
    assert np.median(errors) < 0.5
    assert np.median(errors[8:-8, 8:-8].reshape(-1, 2), axis=0).max() < 0.2


def test_the_first_frame_is_the_second_one_taken_along_the_flow():
    first, second = views((3, -2))
    flow = np.rint(Dis()(first, second)).astype(int)
    y, x = np.mgrid[16:80, 16:112]
    along = second[y + flow[y, x, 1], x + flow[y, x, 0]]
    still = np.abs(second[y, x].astype(int) - first[y, x]).mean()
    assert np.abs(along.astype(int) - first[y, x]).mean() < 0.1 * still


def test_dis_gives_the_same_from_many_threads():
    dis = Dis()
    pairs = [views((x, y)) for x in (-3, 0, 4) for y in (-2, 1, 5)]
    alone = [dis(*pair) for pair in pairs]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(3):
            for one, other in zip(alone, pool.map(lambda pair: dis(*pair), pairs), strict=True):
                assert np.array_equal(one, other)


@pytest.fixture(scope="module")
def raft_weights(tmp_path_factory):
    from safetensors.torch import save_file

    ensure_torchvision()
    from torchvision.models.optical_flow import raft_large, raft_small

    folder = tmp_path_factory.mktemp("raft")
    torch.manual_seed(0)
    large, small = raft_large(weights=None).state_dict(), raft_small(weights=None).state_dict()
    torch.save(large, folder / "large.pth")
    torch.save(small, folder / "small.pth")
    save_file(small, folder / "small.safetensors")
    torch.save({**small, "extra": torch.zeros(1)}, folder / "other.pth")
    return folder


@pytest.mark.parametrize("name", ["large.pth", "small.pth"])
def test_raft_runs_at_sizes_that_it_does_not_take(raft_weights, name):
    raft = open_flow(raft_weights, "raft", name)
    flow = raft(*views((3, -2), size=(50, 131)))
    assert flow.shape == (50, 131, 2)
    assert flow.dtype == np.float32
    assert np.isfinite(flow).all()


def test_raft_weights_come_back_from_both_kinds_of_file(raft_weights):
    first, second = views((3, -2), size=(40, 64))
    flows = [open_flow(raft_weights, "raft", name)(first, second) for name in ("small.pth", "small.safetensors")]
    assert np.array_equal(*flows)
    torch.manual_seed(1)
    from torchvision.models.optical_flow import raft_small

    torch.save(raft_small(weights=None).state_dict(), raft_weights / "second.pth")
    assert not np.array_equal(open_flow(raft_weights, "raft", "second.pth")(first, second), flows[0])


def test_raft_is_called_as_torchvision_documents(raft_weights):
    """The same frames, of a size that needs no padding, through torchvision's own preprocessing."""
    from torchvision.models.optical_flow import raft_small
    from torchvision.transforms._presets import OpticalFlow

    first, second = views((3, -2), size=(128, 136))
    network = raft_small(weights=None).eval()
    network.load_state_dict(torch.load(raft_weights / "small.pth", weights_only=True))
    frames = [torch.from_numpy(frame).permute(2, 0, 1)[None] for frame in (first, second)]
    with torch.no_grad():
        want = network(*OpticalFlow()(*frames))[-1][0].permute(1, 2, 0).numpy()
    got = open_flow(raft_weights, "raft", "small.pth")(first, second)
    assert np.allclose(got, want, atol=1e-3 * max(1.0, np.abs(want).max()))


def test_weights_of_another_network_are_refused(raft_weights):
    with pytest.raises(UserError, match=r"other\.pth is of another network"):
        open_flow(raft_weights, "raft", "other.pth")
