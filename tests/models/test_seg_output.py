"""Classes at an image's own size: the same as from all logits at once, in less memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdsearch.models import seg_output
from kdsearch.models.seg_output import upsampled_classes


def all_at_once(logits_bkhw: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(logits_bkhw.float(), size, mode="bilinear", align_corners=True).argmax(1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("strip", [1, 5 * 2 * 60 * 70, 2**23])
def test_few_classes_at_a_time_give_the_same(
    memory_format: torch.memory_format, dtype: torch.dtype, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seg_output, "STRIP", strip)
    torch.manual_seed(0)
    logits_bkhw = torch.randn(2, 21, 9, 11).to(dtype).to(memory_format=memory_format)
    logits_bkhw[:, 7] = logits_bkhw[:, 13]  # of equal ones the first counts
    size = torch.Size((60, 70))
    assert torch.equal(upsampled_classes(logits_bkhw, size), all_at_once(logits_bkhw, size))


PEAK = """
import re, torch
from pathlib import Path
from tests.models.test_seg_output import all_at_once
from kdsearch.models.seg_output import upsampled_classes
torch.set_num_threads(1)
logits_bkhw, size = torch.randn(1, 150, 32, 48), torch.Size((768, 1024))
def peak_mib():  # getrusage would begin with the peak of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
{function}(logits_bkhw, torch.Size((8, 8)))
before = peak_mib()
{function}(logits_bkhw, size)
print(peak_mib() - before)
"""


def test_memory_does_not_grow_with_the_classes() -> None:
    peak = {
        name: float(subprocess.check_output([sys.executable, "-c", PEAK.format(function=name)], text=True))
        for name in ("all_at_once", "upsampled_classes")
    }
    assert peak["all_at_once"] > 400  # MiB: 150 classes of 768x1024 in fp32
    assert peak["upsampled_classes"] < 120
