"""Checkpoints of whole networks by file and by folder: what is loaded, and what is refused with the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from kdsearch.errors import UserError
from kdsearch.models.checkpoint import checkpoint_file
from kdsearch.models.registry import build_network
from kdsearch.models.weights import load_network
from tests.models.model_cases import clnet, dataset, smp, two_branch

SAVED: list[tuple[str, str, str, dict[str, Any], dict[str, Any]]] = [
    ("FPN", "fpn", "mobilenet_v2", {}, {"decoder_pyramid_channels": 256}),
    ("PSPNet", "pspnet", "resnet18", {"output_stride": 8}, {"output_stride": 8}),
    ("Unet", "unet", "resnet18", {"decoder_channels": (64, 32, 16, 8, 8)}, {"decoder_channels": [64, 32, 16, 8, 8]}),
    ("DeepLabV3Plus", "deeplabv3plus", "tu-mobilenetv3_small_050", {}, {}),
]


@pytest.mark.parametrize(("kind", "arch", "encoder", "given", "options"), SAVED, ids=[case[1] for case in SAVED])
def test_a_folder_that_smp_has_saved(
    kind: str, arch: str, encoder: str, given: dict[str, Any], options: dict[str, Any], tmp_path: Path
) -> None:
    import segmentation_models_pytorch

    original = getattr(segmentation_models_pytorch, kind)(encoder, encoder_weights=None, classes=9, **given)
    original.save_pretrained(tmp_path)
    config = smp(arch, encoder, **options)
    network = build_network(config, dataset(3))
    load_network(network, checkpoint_file(str(tmp_path), config))
    saved = original.state_dict()
    assert all(torch.equal(tensor, saved[key]) for key, tensor in network.state_dict().items())


def test_a_folder_with_another_network_names_the_settings(tmp_path: Path) -> None:
    import segmentation_models_pytorch

    segmentation_models_pytorch.Unet("resnet18", encoder_weights=None, encoder_depth=4,
                                     decoder_channels=(64, 32, 16, 8)).save_pretrained(tmp_path)  # fmt: skip
    with pytest.raises(UserError) as caught:
        checkpoint_file(str(tmp_path), smp("fpn", "mobilenet_v2"))
    options = '{"decoder_channels": [64, 32, 16, 8], "encoder_depth": 4}'
    assert str(caught.value).endswith(
        f'set teacher.arch="unet", teacher.encoder="resnet18", teacher.options={options}.'
    )
    with pytest.raises(UserError, match=r"set teacher.options=\{.*\}\.$"):
        checkpoint_file(str(tmp_path), smp("unet", "resnet18", encoder_depth=4))
    with pytest.raises(UserError, match=r'set teacher.arch="unet", teacher.encoder="resnet18"'):
        checkpoint_file(str(tmp_path), two_branch())


def test_a_folder_that_kdsearch_has_saved(tmp_path: Path) -> None:
    config = clnet(width=8)
    save_file(build_network(config, dataset(4)).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"network": config.model_dump(mode="json")}))
    assert checkpoint_file(str(tmp_path), config) == tmp_path / "model.safetensors"
    with pytest.raises(UserError, match=r"another network than the teacher's: set teacher.width=8\.$"):
        checkpoint_file(str(tmp_path), clnet(width=16))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "config.json or model.safetensors is missing"),
        ({"config.json": "{}"}, "config.json or model.safetensors is missing"),
        ({"config.json": "{", "model.safetensors": ""}, "config.json' is damaged"),
        ({"config.json": "{}", "model.safetensors": ""}, "names no network"),
        ({"config.json": '{"_model_class": "DPT"}', "model.safetensors": ""}, "holds a DPT, which kdsearch does not"),
        ({"config.json": '{"_model_class": "Nothing"}', "model.safetensors": ""}, "holds a Nothing"),
    ],
)
def test_folders_that_are_no_checkpoints(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        checkpoint_file(str(tmp_path), smp("fpn", "mobilenet_v2"))


def test_a_name_on_the_hub_has_to_be_downloaded_first() -> None:
    with pytest.raises(UserError, match="has to be downloaded first"):
        checkpoint_file("smp-hub/segformer-b0-512x512-ade-160k", smp("segformer", "mit_b0"))


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "teacher.pt"
    file.touch()
    assert checkpoint_file(str(file), smp("fpn", "mobilenet_v2")) == file
