from __future__ import annotations

import pytest

from kdsearch.config.networks import (
    AnyNetwork,
    CLNetConfig,
    SmpConfig,
    TwoBranchConfig,
    network_name,
    network_name_of,
    without_weights,
)

CNN = SmpConfig(arch="fpn", encoder="resnet18", encoder_weights="imagenet")
TRANSFORMER = SmpConfig(arch="segformer", encoder="mit_b0", encoder_weights="imagenet")
NAMES = [
    (CNN, "fpn resnet18"),
    (CLNetConfig(arch="clnet", encoder="mit_b0", width=32), "clnet mit_b0 w32"),
    (TwoBranchConfig(arch="two_branch", cnn=CNN, transformer=TRANSFORMER), "two_branch resnet18+mit_b0"),
]


@pytest.mark.parametrize(("config", "name"), NAMES)
def test_network_name(config: AnyNetwork, name: str) -> None:
    assert network_name(config) == name
    assert network_name_of(flat(config.model_dump(mode="json"), "student")) == name


def flat(tree: dict[str, object], prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}.{key}") if isinstance(value, dict) else {f"{prefix}.{key}": str(value)}
    return found


def test_without_weights() -> None:
    network = without_weights(TwoBranchConfig(arch="two_branch", cnn=CNN, transformer=TRANSFORMER))
    assert isinstance(network, TwoBranchConfig)
    assert network.cnn.encoder_weights is network.transformer.encoder_weights is None
