"""Time and memory of one term in both its forms, and of the student's own training step, for `terms.py`."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from benchmarks.naive_terms import Row
from benchmarks.term_scenes import CLASSES, Scene, Setting, difference
from kdsearch.testing.memory import peak_extra_bytes

SECONDS_A_ROW = 10
"""Seconds after which no further repeat of a row starts, if there are three (one of a generator)."""


@dataclass(kw_only=True)
class Result:
    """Measurements of one row: milliseconds, and bytes at `memory_setting`; None if that does not fit."""

    row: Row
    setting: Setting
    memory_setting: Setting
    ours_ms: float
    ours_bytes: int
    naive_ms: float | None
    naive_bytes: int | None
    difference: float | None
    student_ms: float
    estimate: int | None

    @property
    def share(self) -> float:
        return 100 * self.ours_ms / self.student_ms

    @property
    def speedup(self) -> float | None:
        return None if self.naive_ms is None else self.naive_ms / self.ours_ms

    @property
    def saving(self) -> float:
        """Naive bytes over ours; from the formula if the naive form does not fit."""
        naive = naive_needs(self.row, self.memory_setting) if self.naive_bytes is None else self.naive_bytes
        return naive / max(self.ours_bytes, 1)


def measure(row: Row, setting: Setting, repeats: int, student_ms: float) -> Result:
    scene = Scene(row, setting)
    fits = naive_fits(row, setting)
    forms = scene.forms if fits else scene.forms[:1]
    apart = difference(scene) if fits else None
    least, times = 1 if row.generator else 3, [[] for _ in forms]
    started = time.perf_counter()
    for index in range(repeats + 1):
        for form, taken in zip(forms, times, strict=True):
            scene.clear()
            taken.append(seconds(lambda form=form: scene.step(form), setting.device))
        if index >= least and time.perf_counter() - started > SECONDS_A_ROW:
            break
    medians = [1e3 * statistics.median(taken[1:]) for taken in times]

    memory_setting = setting
    if row.pairs and setting.device.type == "cpu":
        memory_setting = dataclasses.replace(setting, size=tuple(2 * extent for extent in setting.size))
        scene = Scene(row, memory_setting)
    held = []
    for form in scene.forms[: 1 + naive_fits(row, memory_setting)]:
        scene.clear()
        held.append(peak_extra_bytes(lambda form=form: scene.step(form), setting.device))
    return Result(
        row=row,
        setting=setting,
        memory_setting=memory_setting,
        ours_ms=medians[0],
        ours_bytes=held[0],
        naive_ms=medians[1] if len(medians) > 1 else None,
        naive_bytes=held[1] if len(held) > 1 else None,
        difference=apart,
        student_ms=student_ms,
        estimate=None if row.ours else scene.term.estimate_bytes(setting.batch),
    )


def naive_needs(row: Row, setting: Setting) -> int:
    """Bytes of the naive form's pair matrices; 0 if they are negligible."""
    height, width = setting.size
    return row.needs(setting.batch, height * width) if row.needs else 0


def naive_fits(row: Row, setting: Setting) -> bool:
    return naive_needs(row, setting) < 0.85 * free_bytes(setting.device)


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Wall time on a GPU; time of the one thread on a CPU, which other programs affect little."""
    if device.type == "cpu":
        started = time.process_time()
        function()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def student_step_ms(setting: Setting, repeats: int) -> float:
    """Milliseconds of the student's own training step in fp32: forward, cross-entropy, backward, SGD."""
    from kdsearch.config.networks import SmpConfig
    from kdsearch.models.registry import build_network

    torch.manual_seed(0)
    config = SmpConfig(arch="deeplabv3", encoder="resnet18", options={"decoder_channels": 128})
    network = build_network(config, setting.info()).to(setting.device)
    size = [8 * extent for extent in setting.size]
    image = torch.randn(setting.batch, 3, *size, device=setting.device)
    target = torch.randint(CLASSES, (setting.batch, *size), device=setting.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        logits = F.interpolate(network(image).logits, size, mode="bilinear", align_corners=True)
        F.cross_entropy(logits, target).backward()
        optimizer.step()

    taken = [seconds(step, setting.device) for _ in range(repeats + 1)]
    return 1e3 * statistics.median(taken[1:])
