from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from kdsearch.models.cost import network_cost
from kdsearch.models.networks.two_branch import TwoBranch
from kdsearch.models.registry import build_network
from tests.models.model_cases import dataset, images, two_branch

INFO = dataset(3, classes=5)


@pytest.fixture(scope="module")
def network() -> TwoBranch:
    torch.manual_seed(0)
    network = build_network(two_branch(), INFO)
    assert isinstance(network, TwoBranch)
    return network.eval()


def coarse_logits(network: TwoBranch, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    cnn, transformer = network.cnn(image).logits, network.transformer(image).logits
    size = min(cnn.shape[-2:], transformer.shape[-2:])
    return F.interpolate(cnn, size, mode="bilinear"), F.interpolate(transformer, size, mode="bilinear")


@torch.no_grad()
def test_fusions_pixel_by_pixel(network: TwoBranch) -> None:
    image = images(3, (64, 96))
    logits_c, logits_t = coarse_logits(network, image)
    fused = {}
    for fuse in ("mean_prob", "gate", "max_conf"):
        network.fuse = fuse  # type: ignore[assignment]
        fused[fuse] = network(image).logits
    mean = (logits_c.softmax(1) + logits_t.softmax(1)) / 2
    torch.testing.assert_close(fused["mean_prob"].exp(), mean)
    gate = network(image).taps["gate"]
    torch.testing.assert_close(fused["gate"], gate * logits_c + (1 - gate) * logits_t)
    assert gate.min() > 0
    assert gate.max() < 1
    for b, i, j in [(0, 0, 0), (1, 3, 5), (0, 7, 11)]:
        pixel_c, pixel_t = logits_c[b, :, i, j], logits_t[b, :, i, j]
        entropies = [-(p.softmax(0) * p.log_softmax(0)).sum() for p in (pixel_c, pixel_t)]
        expected = pixel_c if entropies[0] <= entropies[1] else pixel_t
        torch.testing.assert_close(fused["max_conf"][b, :, i, j], expected)


def test_branches_have_their_own_taps(network: TwoBranch) -> None:
    with torch.no_grad():
        output = network(images(3, (64, 96)))
    assert torch.equal(output.taps["head"], output.taps["cnn.head"])
    assert output.taps["transformer.head"].shape[1] != output.taps["cnn.head"].shape[1]
    assert {"cnn.c4", "transformer.c4", "cnn.logits", "transformer.logits", "gate"} <= output.taps.keys()


def test_the_gate_learns_without_the_branches(network: TwoBranch) -> None:
    network.fuse = "gate"
    output = network(images(3, (64, 96)))
    output.taps["gate"].sum().backward()
    assert network.gate.weight.grad is not None
    assert all(p.grad is None for branch in (network.cnn, network.transformer) for p in branch.parameters())
    network.gate.zero_grad()


def test_all_fusions_share_their_weights_and_cost() -> None:
    costs = {network_cost(two_branch(fuse), INFO, (64, 96)).params_m for fuse in ("mean_prob", "gate", "max_conf")}
    assert len(costs) == 1
    state = build_network(two_branch("gate"), INFO).state_dict()
    build_network(two_branch("max_conf"), INFO).load_state_dict(state)
