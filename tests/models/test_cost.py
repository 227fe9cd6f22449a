"""Counts, shapes and refusals on the meta device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kdsearch.compat import ensure_torchvision
from kdsearch.config.networks import CLNetTeacher, SmpConfig
from kdsearch.errors import UserError
from kdsearch.models.cost import check_batch, network_cost, tap_shapes
from kdsearch.models.registry import build_network
from kdsearch.models.weights import load_network
from tests.models.model_cases import clnet, dataset, smp


@pytest.mark.parametrize(
    ("config", "params_m", "gmac"),
    [
        (smp("segformer", "mit_b0"), 3.72, 17.8),
        (smp("pspnet", "resnet18", encoder_depth=5, output_stride=8, psp_out_channels=128), 11.59, 97.5),
        (smp("deeplabv3", "mobilenet_v2", decoder_channels=128), 7.21, 58.2),
    ],
)
def test_table_of_smp_networks(config: SmpConfig, params_m: float, gmac: float) -> None:
    """Measured once for these: 19 classes, RGB, 512x1024."""
    found = network_cost(config, dataset(3, classes=19), (512, 1024))
    assert found.params_m == pytest.approx(params_m, abs=0.0051)
    assert found.gflops / 2 == pytest.approx(gmac, abs=0.051)


def test_stages_that_never_run_are_not_counted() -> None:
    """PSPNet of depth 3 as smp builds it holds 11.41 M parameters, most of them in stages that it never runs."""
    found = network_cost(smp("pspnet", "resnet18"), dataset(3, classes=19), (512, 1024))
    assert found.gflops / 2 == pytest.approx(12.2, abs=0.051)
    assert found.params_m < 1.5


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "tu-mobilenetv3_small_050"])
def test_stages_that_run_in_vain_are_neither_counted_nor_built(encoder: str) -> None:
    """Both run a stage, or more, behind the last one of `encoder_depth`, and throw the result away."""
    config = smp("pspnet", encoder)
    network = build_network(config, dataset(3)).eval()
    slopes = torch.autograd.grad(
        network(torch.randn(1, 3, 64, 96)).logits.sum(), list(network.parameters()), allow_unused=True
    )
    assert all(slope is not None for slope in slopes)
    assert network_cost(config, dataset(3), (64, 96)).params_m < 0.14


def test_a_network_saved_with_such_stages_is_still_read(tmp_path: Path) -> None:
    """And predicts the same."""
    ensure_torchvision()
    import segmentation_models_pytorch

    whole = segmentation_models_pytorch.PSPNet("mobilenet_v2", encoder_weights=None, classes=9).eval()
    state = whole.state_dict()
    assert any(name.startswith("encoder.features.10.") for name in state)
    save_file(state, tmp_path / "model.safetensors")
    network = build_network(smp("pspnet", "mobilenet_v2"), dataset(3)).eval()
    load_network(network, tmp_path / "model.safetensors")
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = whole.encoder(image)
        expected = whole.segmentation_head[0](whole.decoder(features))
        assert torch.equal(network(image).logits, expected)


def test_detail_heads_are_no_part_of_the_cost() -> None:
    network = build_network(clnet(), dataset(4))
    heads = sum(parameter.numel() for head in network.detail_heads() for parameter in head.parameters())
    assert heads > 0
    whole = sum(parameter.numel() for parameter in network.parameters())
    assert network_cost(clnet(), dataset(4), (64, 96)).params_m == (whole - heads) / 1e6


def test_one_class_more_costs_one_filter_more() -> None:
    nine, ten = (network_cost(smp("fpn", "mobilenet_v2"), dataset(3, classes=count), (64, 96)) for count in (9, 10))
    assert (ten.gflops - nine.gflops) * 1e9 == pytest.approx(2 * 128 * (64 // 4) * (96 // 4), abs=1)
    assert (ten.params_m - nine.params_m) * 1e6 == pytest.approx(128 + 1)


def test_a_teacher_costs_what_its_network_costs() -> None:
    teacher = CLNetTeacher.model_validate({"arch": "clnet", "encoder": "mit_b0", "width": 16})
    assert network_cost(teacher, dataset(4), (64, 96)) == network_cost(clnet(), dataset(4), (64, 96))


def test_counting_leaves_the_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    network_cost(smp("linknet", "mobilenet_v2"), dataset(4), (64, 64))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_seed_makes_the_network() -> None:
    built = []
    for _ in range(2):
        torch.manual_seed(5)
        built.append(build_network(smp("fpn", "tu-mobilenetv3_small_050"), dataset(4)).state_dict())
    assert all(torch.equal(built[0][key], built[1][key]) for key in built[0])


@pytest.mark.parametrize(
    ("config", "size", "nearest"),
    [
        (smp("segformer", "mit_b0"), (360, 480), "352x480"),
        (smp("fpn", "mobilenet_v2"), (100, 132), "96x128"),
        (smp("deeplabv3plus", "mobilenet_v2"), (90, 128), "96x128"),
        (smp("pan", "mobilenet_v2"), (64, 96), "128x128"),
        (clnet(), (16, 64), "32x64"),
    ],
)
def test_a_size_that_cannot_run_names_one_that_can(config: SmpConfig, size: tuple[int, int], nearest: str) -> None:
    with pytest.raises(UserError, match=f"{size[0]}x{size[1]}.*nearest size that it takes is {nearest}"):
        network_cost(config, dataset(4), size)
    height, width = nearest.split("x")
    assert tap_shapes(config, dataset(4), (int(height), int(width)))


def test_an_encoder_of_one_size_runs_at_that_size() -> None:
    config = smp("unet", "tu-swin_tiny_patch4_window7_224")
    assert network_cost(config, dataset(3), (224, 224)).gflops > 0
    assert build_network(config, dataset(3), (224, 224)).dropped == build_network(config, dataset(3)).dropped
    with pytest.raises(UserError, match=r"not run at 256x256 \(.*224\)+\. The nearest size that it takes is 224x224"):
        network_cost(config, dataset(3), (256, 256))


@pytest.mark.parametrize(
    ("arch", "encoder"),
    [("deeplabv3", "tu-ghostnet_100"), ("pan", "tu-vgg11"), ("deeplabv3plus", "tu-swin_tiny_patch4_window7_224")],
)
def test_an_encoder_that_a_decoder_cannot_take_is_refused_with_the_reason(arch: str, encoder: str) -> None:
    with pytest.raises(UserError, match=rf"smp cannot build {arch} on {encoder} \(.+\)\. Take another encoder, arch"):
        network_cost(smp(arch, encoder), dataset(3), (224, 224))


def test_a_batch_of_one_that_batch_normalisation_cannot_take() -> None:
    config, info = smp("deeplabv3plus", "mobilenet_v2"), dataset(3)
    with pytest.raises(UserError, match=r"cannot be trained on one image of 64x64 at a time .*more than 1 value"):
        check_batch(config, info, (64, 64), 1)
    check_batch(config, info, (64, 64), 2)
    check_batch(smp("fpn", "mobilenet_v2"), info, (64, 64), 1)
    with pytest.raises(UserError, match="one image of 32x32"):
        check_batch(smp("fpn", "mobilenet_v2"), info, (32, 32), 1)
    network = build_network(config, info)  # the cached one on the meta device was left in eval mode
    assert network_cost(config, info, (64, 64)).params_m == sum(p.numel() for p in network.parameters()) / 1e6


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (smp("fpn", "mobilenet_v3"), "no encoder 'mobilenet_v3'. Did you mean 'mobilenet_v2'"),
        (smp("fpn", "tu-mobilenetv3_smal_050"), "Did you mean 'tu-mobilenetv3_small_050'"),
        (smp("fpn", "mobilenetv3_small_050"), "'tu-mobilenetv3_small_050'"),
        (smp("fpn", "zzzz"), "list them"),
        (smp("fpn", "resnet18", decoder_piramid_channels=64), "Did you mean 'decoder_pyramid_channels'"),
        (smp("fpn", "resnet18", upsampling=4), "'upsampling' is not an option of fpn"),
        (smp("fpn", "resnet18", decoder_merge_policy="max"), "smp cannot build fpn on resnet18"),
        (smp("unetplusplus", "mit_b0"), "smp cannot build unetplusplus on mit_b0"),
        (smp("fpn", "tu-vit_tiny_patch16_224"), "smp cannot build fpn on tu-vit_tiny_patch16_224"),
    ],
)
def test_what_cannot_be_built_is_explained(config: SmpConfig, message: str) -> None:
    for request in (build_network, lambda config, info: network_cost(config, info, (64, 64))):
        with pytest.raises(UserError) as caught:
            request(config, dataset(3))
        assert message in str(caught.value)


def test_import_brings_no_network_library() -> None:
    script = (
        "import sys, kdsearch.models; "
        "sys.exit(str([m for m in ('segmentation_models_pytorch', 'timm', 'torchvision') if m in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
