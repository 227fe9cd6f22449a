"""The private interface of torch, and a torch without it."""

from __future__ import annotations

import logging

import pytest
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdsearch.models import torch_private


def test_buffers_are_excluded_from_broadcasts() -> None:
    module = nn.BatchNorm1d(2)
    torch_private.exclude_from_broadcast(module, ["running_mean"])
    assert "running_mean" in module._ddp_params_and_buffers_to_ignore


def test_a_torch_without_it_broadcasts_all_buffers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(DistributedDataParallel, "_set_params_and_buffers_to_ignore_for_model")
    torch_private._warn.cache_clear()
    module = nn.BatchNorm1d(2)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            torch_private.exclude_from_broadcast(module, ["running_mean"])
    assert not hasattr(module, "_ddp_params_and_buffers_to_ignore")
    assert len(caplog.records) == 1
    assert "queues are broadcast at every step" in caplog.text
