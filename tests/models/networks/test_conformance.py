"""The conformance suite of networks on every architecture."""

from __future__ import annotations

import pytest

from kdsearch.models.cost import tap_shapes
from kdsearch.testing.networks import NetworkCase, NetworkConformance
from tests.models.model_cases import clnet, dataset, smp, two_branch

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
    "pspnet mobile": (smp("pspnet", "mobilenet_v2"), 3, SMALL),
    "pspnet dilated": (smp("pspnet", "mobilenet_v2", encoder_depth=5, output_stride=8), 4, SMALL),
    "deeplabv3": (smp("deeplabv3", "resnet18", decoder_channels=32), 3, SMALL),
    "deeplabv3plus": (smp("deeplabv3plus", "tu-mobilenetv3_small_050"), 4, SMALL),
    "pan": (smp("pan", "mobilenet_v2"), 3, PAN),
    "upernet": (smp("upernet", "tu-convnext_atto", decoder_channels=32), 3, SMALL),
    "segformer": (smp("segformer", "mit_b0"), 4, SMALL),
    "two branches": (two_branch(), 3, SMALL),
    "two branches gated": (two_branch("gate"), 4, SMALL),
}


@pytest.mark.parametrize(
    "case",
    [NetworkCase(config, dataset(channels), size) for config, channels, size in NETWORKS.values()],
    ids=NETWORKS,
    scope="class",
)
class TestNetworks(NetworkConformance):
    """Every architecture; a new network is tested by its row in `NETWORKS`."""

    def test_head_has_the_size_of_the_logits(self, case: NetworkCase) -> None:
        shapes = tap_shapes(case.config, case.info, case.size)
        assert shapes["head"][1:] == shapes["logits"][1:]

    def test_encoder_taps_narrow_down_to_c4(self, case: NetworkCase) -> None:
        shapes = tap_shapes(case.config, case.info, case.size)
        widths = [shapes[name][2] for name in ("c1", "c2", "c3", "c4") if name in shapes]
        assert len(widths) >= 3
        assert widths == sorted(widths, reverse=True)
