from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported: threads of two test processes on two cores, and of the workers below them, would wait
    # for each other by spinning.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pathlib import Path
from typing import Any

import pytest
import torch

from kdsearch.compat import ensure_torchvision

ensure_torchvision()

from kdsearch.config.trial import TrialConfig  # noqa: E402
from kdsearch.data.store.store import Store, build_store  # noqa: E402
from kdsearch.models.registry import build_network  # noqa: E402

SMALL: dict[str, Any] = {
    "data": {"name": "scenes", "size": [32, 64], "options": {"train": 12, "val": 5, "height": 32, "width": 64}},
    "student": {"arch": "fpn", "encoder": "tu-mobilenetv3_small_050"},
    "train": {"epochs": 3, "batch_size": 4, "lr": 1e-3},
}
TEACHER = {"arch": "clnet", "encoder": "mit_b0", "width": 8, "steps": 2}


def config(**changes: Any) -> TrialConfig:
    return TrialConfig.model_validate(SMALL | changes)


def distilled(**distill: Any) -> TrialConfig:
    terms = distill or {"dsrd": {"weight": 1.0}, "clfd": {"weight": 0.5}}
    return config(teacher=TEACHER, distill=terms)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return build_store(config().data, tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="session")
def teacher_weights(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    teacher = distilled().teacher
    assert teacher is not None
    path = tmp_path_factory.mktemp("teacher") / "model.safetensors"
    save_file(build_network(teacher.network(), store.info).state_dict(), path)
    return path
