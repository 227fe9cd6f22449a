"""CLNet against the published networks."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kdsearch.config.networks import CLNetConfig
from kdsearch.errors import UserError
from kdsearch.models.cost import network_cost, tap_shapes
from kdsearch.models.registry import build_network, meta_network
from tests.models.model_cases import clnet, dataset, images

MFNET_SIZE = (480, 640)
STUDENT = clnet("mit_b2", width=64)
TEACHER = clnet("mit_b4", width=64, shared_encoder=False)


@pytest.mark.parametrize(
    ("config", "parameters", "gmac", "gmac_inference"),
    [(STUDENT, 30_753_733, 160.33, 158.21), (TEACHER, 128_242_821, 240.07, 237.94)],
)
def test_published_size(config: CLNetConfig, parameters: int, gmac: float, gmac_inference: float) -> None:
    """The published counts, with detail heads, of the parameters that receive a gradient; inference goes without."""
    network = meta_network(config, dataset(4))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    network.detail_taps = True
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 4, *MFNET_SIZE, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=1e-4)
    assert network_cost(config, dataset(4), MFNET_SIZE).gflops / 2 == pytest.approx(gmac_inference, rel=1e-4)


def test_published_shapes() -> None:
    shapes = tap_shapes(STUDENT, dataset(4), MFNET_SIZE)
    assert shapes == {
        "logits": (9, 480, 640),
        "head": (64, 480, 640),
        "con1": (64, 60, 80),
        "con2": (64, 120, 160),
        "con3": (64, 240, 320),
        **{f"{detail}{step}": (2, 480, 640) for detail in ("bound", "bin") for step in (1, 2, 3)},
        "c1": (64, 120, 160),
        "c2": (128, 60, 80),
        "c3": (320, 30, 40),
        "c4": (512, 15, 20),
        "f": (128, 60, 80),
        "sem": (128, 15, 20),
    }


def test_two_steps_end_at_half_resolution() -> None:
    shapes = tap_shapes(clnet(steps=2), dataset(4), (64, 96))
    assert shapes["logits"] == (9, 32, 48)
    assert "con3" not in shapes
    assert shapes["bound2"] == (2, 64, 96)
    assert (
        network_cost(clnet(steps=2), dataset(4), (64, 96)).gflops
        < 0.7 * network_cost(clnet(), dataset(4), (64, 96)).gflops
    )


@pytest.mark.parametrize("steps", [2, 3])
def test_detail_logits_are_never_negative_and_can_be_left_out(steps: int) -> None:
    network = build_network(clnet(width=8, steps=steps), dataset(4)).eval()
    with torch.no_grad():
        full = network(images(4, (64, 64)))
        network.detail_taps = False
        lean = network(images(4, (64, 64)))
    details = {f"{detail}{step + 1}" for detail in ("bound", "bin") for step in range(steps)}
    assert full.taps.keys() - lean.taps.keys() == details
    assert all(full.taps[name].min() >= 0 for name in details)
    assert torch.equal(full.logits, lean.logits)


def test_a_shared_encoder_sees_each_modality_alone() -> None:
    network = build_network(clnet(width=8), dataset(4)).eval()
    (encoder,) = network.encoders()
    image_bchw = images(4, (64, 64))
    with torch.no_grad():
        rgb, thermal = encoder(image_bchw[:, :3])[-4:], encoder(image_bchw[:, 3:].repeat(1, 3, 1, 1))[-4:]
        taps = network(image_bchw).taps
    for level in range(4):
        torch.testing.assert_close(taps[f"c{level + 1}"], rgb[level] + thermal[level], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_both_modalities_matter(shared: bool) -> None:
    network = build_network(clnet(width=8, shared_encoder=shared), dataset(4)).eval()
    image_bchw = images(4, (64, 64)).requires_grad_()
    network(image_bchw).logits.square().mean().backward()
    assert image_bchw.grad is not None
    assert (image_bchw.grad.abs().amax((0, 2, 3)) > 0).all()


def test_rgb_alone_is_refused() -> None:
    with pytest.raises(UserError, match=r"needs a thermal channel.*toy has 3"):
        build_network(clnet(), dataset(3))
