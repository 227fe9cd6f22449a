"""Networks and data sets that the tests of kdsearch.models share."""

from __future__ import annotations

import torch
from torch import Tensor

from kdsearch.config.networks import CLNetConfig, SmpConfig, TwoBranchConfig
from kdsearch.data.info import DatasetInfo


def dataset(channels: int, classes: int = 9) -> DatasetInfo:
    return DatasetInfo(
        name="toy",
        classes=tuple(f"class{index}" for index in range(classes)),
        palette=((0, 0, 0),) * classes,
        channels=channels,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )


def clnet(encoder: str = "mit_b0", width: int = 16, **fields: object) -> CLNetConfig:
    return CLNetConfig.model_validate({"arch": "clnet", "encoder": encoder, "width": width, **fields})


def smp(arch: str, encoder: str, **options: object) -> SmpConfig:
    return SmpConfig.model_validate({"arch": arch, "encoder": encoder, "options": options})


def two_branch(fuse: str = "mean_prob") -> TwoBranchConfig:
    cnn, transformer = {"arch": "fpn", "encoder": "resnet18"}, {"arch": "segformer", "encoder": "mit_b0"}
    return TwoBranchConfig.model_validate({"arch": "two_branch", "fuse": fuse, "cnn": cnn, "transformer": transformer})


def images(channels: int, size: tuple[int, int], batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))
