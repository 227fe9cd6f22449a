from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from kdsearch.data.store.store import Store
from kdsearch.models.registry import build_network
from kdsearch.train.resources import Resources
from kdsearch.train.teacher import teacher_trial
from tests.train.stc_cases import stc


@pytest.fixture(scope="session")
def stc_resources(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Resources:
    """Resources of the trials of `stc_cases`, with an untrained teacher."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("two_branch") / "model.safetensors"
    save_file(build_network(teacher_trial(stc()).student, store.info).state_dict(), path)
    return Resources(store.path, path)
