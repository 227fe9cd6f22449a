"""What every network keeps to, whatever its architecture."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdsearch.config.networks import AnyNetwork
from kdsearch.data.info import DatasetInfo
from kdsearch.models.cost import network_cost, tap_shapes
from kdsearch.models.network import Network
from kdsearch.models.output import SegOutput
from kdsearch.models.registry import build_network
from tests.models.model_cases import clnet, dataset, images, smp, two_branch

SMALL, PAN = (64, 96), (128, 160)
NETWORKS = {
    "clnet": (clnet(), 4, SMALL),
    "clnet two encoders": (clnet(shared_encoder=False, width=8), 4, SMALL),
    "clnet two steps": (clnet(steps=2), 4, SMALL),
    "clnet odd size": (clnet(width=8), 4, (70, 101)),
    "unet": (smp("unet", "tu-mobilenetv3_small_050"), 4, SMALL),
    "unet odd size": (smp("unet", "resnet18", decoder_channels=[64, 48, 32, 16, 8]), 3, (70, 101)),
    "unetplusplus": (smp("unetplusplus", "tu-mobilenetv3_small_050", decoder_channels=[32, 16, 16, 8, 8]), 3, SMALL),
    "manet": (smp("manet", "tu-mobilenetv3_small_050", decoder_channels=[64, 32, 32, 16, 16]), 3, SMALL),
    "linknet": (smp("linknet", "resnet18"), 4, SMALL),
    "fpn": (smp("fpn", "mobilenet_v2"), 4, SMALL),
    "fpn unused head": (smp("fpn", "efficientnet-b0", decoder_pyramid_channels=32), 3, SMALL),
    "fpn fused attention": (smp("fpn", "tu-pvt_v2_b0"), 4, SMALL),
    "pspnet three stages": (smp("pspnet", "resnet18"), 3, SMALL),
    "pspnet dilated": (smp("pspnet", "mobilenet_v2", encoder_depth=5, output_stride=8), 4, SMALL),
    "deeplabv3": (smp("deeplabv3", "resnet18", decoder_channels=32), 3, SMALL),
    "deeplabv3plus": (smp("deeplabv3plus", "tu-mobilenetv3_small_050"), 4, SMALL),
    "pan": (smp("pan", "mobilenet_v2"), 3, PAN),
    "upernet": (smp("upernet", "tu-convnext_atto", decoder_channels=32), 3, SMALL),
    "segformer": (smp("segformer", "mit_b0"), 4, SMALL),
    "two branches": (two_branch(), 3, SMALL),
    "two branches gated": (two_branch("gate"), 4, SMALL),
}

Case = tuple[AnyNetwork, DatasetInfo, tuple[int, int]]


@pytest.fixture(scope="class", params=list(NETWORKS))
def case(request: pytest.FixtureRequest) -> Case:
    config, channels, size = NETWORKS[request.param]
    return config, dataset(channels), size


@pytest.fixture(scope="class")
def network(case: Case) -> Network:
    torch.manual_seed(0)
    return build_network(case[0], case[1])


class TestNetwork:
    """One suite for all: a new network is tested by its row in `NETWORKS`."""

    def test_shapes_are_the_announced_ones(self, case: Case, network: Network) -> None:
        config, info, size = case
        with torch.no_grad():
            output = network.eval()(images(info.channels, size))
        assert isinstance(output, SegOutput)
        maps = {"logits": output.logits, **output.taps}
        assert {name: tuple(feat.shape[1:]) for name, feat in maps.items()} == tap_shapes(config, info, size)
        assert all(feat.shape[0] == 2 and feat.isfinite().all() for feat in maps.values())
        assert output.logits.shape[1] == info.num_classes
        assert output.taps["head"].shape[-2:] == output.logits.shape[-2:]

    def test_encoder_taps_narrow_down_to_c4(self, case: Case) -> None:
        shapes = tap_shapes(*case)
        widths = [shapes[name][2] for name in ("c1", "c2", "c3", "c4") if name in shapes]
        assert len(widths) >= 3
        assert widths == sorted(widths, reverse=True)

    def test_every_parameter_gets_a_gradient(self, case: Case, network: Network) -> None:
        _, info, size = case
        network.train().zero_grad()
        output = network(images(info.channels, size))
        details = [feat for name, feat in output.taps.items() if name.startswith(("bound", "bin", "gate"))]
        torch.stack([feat.square().mean() for feat in (output.logits, *details)]).sum().backward()
        assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
        assert all(parameter.grad.isfinite().all() for parameter in network.parameters())  # type: ignore[union-attr]

    def test_evaluation_is_deterministic(self, case: Case, network: Network) -> None:
        _, info, size = case
        network.eval()
        with torch.no_grad():
            first, second = (network(images(info.channels, size)) for _ in range(2))
        assert torch.equal(first.logits, second.logits)

    def test_state_dict_round_trip(self, case: Case, network: Network) -> None:
        config, info, size = case
        torch.manual_seed(99)
        other = build_network(config, info).eval()
        other.load_state_dict(network.eval().state_dict())
        with torch.no_grad():
            assert torch.equal(other(images(info.channels, size)).logits, network(images(info.channels, size)).logits)

    def test_cost_is_what_a_real_forward_counts(self, case: Case, network: Network) -> None:
        config, info, size = case
        network.eval().detail_taps = False
        unfused = sdpa_kernel(SDPBackend.MATH)  # torch's counter misses the fused attention of the CPU
        with FlopCounterMode(display=False) as counter, torch.no_grad(), unfused:
            network(images(info.channels, size, batch=1))
        network.detail_taps = True
        found = network_cost(config, info, size)
        assert found.gflops == counter.get_total_flops() / 1e9
        assert found.params_m == sum(parameter.numel() for parameter in network.parameters()) / 1e6
