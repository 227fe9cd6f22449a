"""cirkd and cirkd_memory against the loops of `reference_cirkd.py`, what the queues hold, and what they cost."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.distill.ops.class_queue import ClassQueue
from kdsearch.distill.ops.features import unit
from kdsearch.distill.ops.relation_kl import block_rows, relation_kl
from kdsearch.distill.terms.cirkd_memory import CIRKDMemory
from kdsearch.models.seg_output import SegOutput
from kdsearch.testing.memory import peak_extra_bytes

from . import reference, reference_cirkd
from .scene import CLASSES, Scene

TAP = {"tap": "con1"}


@pytest.mark.parametrize("mask_ignored", [True, False])
def test_cirkd_is_the_loop_over_pairs_of_images(narrow: Scene, mask_ignored: bool) -> None:
    if mask_ignored and len(narrow.target) > 1:
        narrow.target[1] = IGNORE_INDEX  # an image without a valid pixel
    valid = (narrow.target != IGNORE_INDEX) | (not mask_ignored)
    term = narrow.build("cirkd", mask_ignored=mask_ignored, tau=0.2, **TAP)
    narrow.check(term, lambda s, t: reference_cirkd.cirkd(s.taps["con1"], t.taps["con1"], valid, 0.2))


@pytest.mark.parametrize("pool", [2, 4])
def test_cirkd_pools_valid_pixels(narrow: Scene, pool: int) -> None:
    valid = narrow.target != IGNORE_INDEX
    valid[0, 2:, :] = False
    narrow.target[~valid] = IGNORE_INDEX

    def expected(s: SegOutput, t: SegOutput) -> Tensor:
        (pool_s, some), (pool_t, _) = (reference_cirkd.pooled(o.taps["con1"], valid, pool) for o in (s, t))
        return reference_cirkd.cirkd(pool_s, pool_t, some, 0.1)

    narrow.check(narrow.build("cirkd", pool=pool, **TAP), expected)


@pytest.mark.parametrize("block", [1, 5, 24, 100])
@pytest.mark.parametrize("keep", [False, True])
def test_relation_kl_in_blocks(block: int, keep: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    rows_s, rows_t, keys_s, keys_t = (
        torch.randn(n, c, generator=generator, dtype=torch.float64).requires_grad_(c == 3)
        for n, c in ((24, 3), (24, 5), (12, 3), (12, 5))
    )
    weight_n = torch.rand(24, generator=generator, dtype=torch.float64)
    keep_m = torch.rand(12, generator=generator) < 0.6 if keep else None
    if keep_m is not None:
        keep_m[4:8] = False  # a group without keys adds nothing
    value = relation_kl(rows_s, rows_t, keys_s, keys_t, weight_n, keep_m, 0.7, groups=3, block=block)
    wanted = torch.zeros((), dtype=torch.float64)
    for group in range(3):
        part = torch.arange(4 * group, 4 * group + 4)
        part = part if keep_m is None else part[keep_m[part]]
        if len(part):
            log_s, log_t = (
                (rows @ keys[part].T / 0.7).log_softmax(1) for rows, keys in ((rows_s, keys_s), (rows_t, keys_t))
            )
            wanted = wanted + (weight_n[:, None] * log_t.exp() * (log_t - log_s)).sum()
    torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-10)
    for grad, wanted_grad in zip(
        torch.autograd.grad(value, (rows_s, keys_s)), torch.autograd.grad(wanted, (rows_s, keys_s)), strict=True
    ):
        torch.testing.assert_close(grad, wanted_grad, rtol=1e-10, atol=1e-10)


def test_relation_kl_without_a_gradient() -> None:
    rows = torch.randn(6, 3).requires_grad_()
    weight = torch.ones(6)
    with torch.no_grad():
        silent = relation_kl(rows, rows.flip(0), rows, rows, weight, None, 0.1)
    assert not silent.requires_grad
    assert silent == relation_kl(rows, rows.flip(0), rows, rows, weight, None, 0.1)
    assert not relation_kl(rows.detach(), rows.detach(), rows.detach(), rows.detach(), weight, None, 0.1).requires_grad


def test_cirkd_takes_a_tenth_of_the_memory_of_the_whole_matrix() -> None:
    images, pixels = 4, 400
    rows = images * pixels
    generator = torch.Generator().manual_seed(0)
    feat_s = torch.randn(rows, 16, generator=generator).requires_grad_()
    feat_t = torch.randn(rows, 32, generator=generator)
    weight_n = torch.full((rows,), 1 / (rows * images))

    def streamed() -> None:
        feat_s.grad = None
        unit_s, unit_t = unit(feat_s), unit(feat_t)
        relation_kl(unit_s, unit_t, unit_s, unit_t, weight_n, None, 0.1, groups=images).backward()

    def whole() -> None:
        feat_s.grad = None
        unit_s, unit_t = unit(feat_s), unit(feat_t)
        log_s, log_t = ((u @ u.T / 0.1).view(rows, images, -1).log_softmax(2) for u in (unit_s, unit_t))
        (weight_n[:, None, None] * log_t.exp() * (log_t - log_s)).sum().backward()

    assert peak_extra_bytes(streamed) < peak_extra_bytes(whole) / 10
    assert block_rows(2**20, 2**20) * 2**20 <= 2**22
    assert block_rows(3, 2**30) == 1


@pytest.mark.parametrize("weights", [(0.3, 0.7), (0.3, 0.0), (0.0, 0.7)])
def test_cirkd_memory_is_the_projected_student_against_its_queues(scene: Scene, weights: tuple[float, float]) -> None:
    # Short queues, all slots of which are sampled: what is drawn is known.
    sizes = {name: 4 for name, weight in zip(("queue", "region_queue"), weights, strict=True) if weight}
    term = scene.build("cirkd_memory", w_pixel=weights[0], w_region=weights[1], **sizes, **TAP)
    for _ in range(4):
        term(scene.student, scene.teacher, scene.target)
    term.eval()
    queues = [(w, q) for w, q in zip(weights, (term.pixel_queue, term.region_queue), strict=True) if w]
    assert (term.pixel_queue is None, term.region_queue is None) == (weights[0] == 0, weights[1] == 0)
    valid, present = scene.target != IGNORE_INDEX, reference.by_class(scene.target)

    def expected(s: SegOutput, t: SegOutput) -> Tensor:
        total = 0
        for weight, queue in queues:
            assert queue.fill_k.tolist() == [4 * (c in present) for c in range(CLASSES)]
            keys = list(queue.entries_kqc[queue.fill_k > 0].flatten(0, 1))
            maps = (term.projector(s.taps["con1"]), t.taps["con1"])
            total = total + weight * reference_cirkd.against_keys(*maps, keys, valid, 0.1)
        return total

    scene.check(term, expected)


def test_regions_are_class_means_of_each_image(scene: Scene) -> None:
    term = scene.build("cirkd_memory", w_pixel=0.0, region_queue=10, **TAP)
    term(scene.student, scene.teacher, scene.target)
    for c in range(CLASSES):
        wanted = reference_cirkd.regions(scene.teacher.taps["con1"], scene.target, c)
        assert term.region_queue.fill_k[c] == len(wanted)
        for entry, region in zip(term.region_queue.entries_kqc[c], wanted, strict=False):
            torch.testing.assert_close(entry, region, rtol=1e-10, atol=1e-10)


def coloured(batch: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features whose only non-zero channel is the class; ignored pixels have the last one."""
    label = torch.randint(CLASSES, (batch, 3, 4), generator=torch.Generator().manual_seed(seed))
    valid = label != CLASSES - 1
    return torch.nn.functional.one_hot(label, CLASSES).permute(0, 3, 1, 2).double(), torch.where(valid, label, 0), valid


@pytest.mark.parametrize("length", [1, 3, 7, 100])
def test_queues_hold_their_class_wrap_and_sample_what_is_filled(length: int) -> None:
    queue, pushed = ClassQueue(CLASSES, length, CLASSES).double(), torch.zeros(CLASSES, dtype=torch.long)
    for step in range(6):
        feat, label, valid = coloured(2, step)
        queue.push(feat, label, valid, 2)
        for c in range(CLASSES):
            pushed[c] += ((label == c) & valid).sum((1, 2)).clamp_max(2).sum()
        assert torch.equal(queue.next_k, pushed % length)
        assert torch.equal(queue.fill_k, pushed.clamp_max(length))
        keys_knc, present_k = queue.sample(5)
        assert keys_knc.shape == (CLASSES, min(5, length), CLASSES)
        assert torch.equal(present_k, pushed > 0)
        for c in present_k.nonzero()[:, 0].tolist():
            assert (queue.entries_kqc[c, : queue.fill_k[c], c] == 1).all()
            assert (keys_knc[c, :, c] == 1).all()  # an unfilled slot would be 0
    assert not present_k[-1]


def test_full_queues_are_sampled_at_the_same_slots_without_repeats() -> None:
    queue = ClassQueue(3, 50, 1)
    queue.entries_kqc.copy_(torch.arange(50.0)[None, :, None].expand(3, 50, 1))
    queue.fill_k.copy_(torch.tensor([50, 50, 7]))
    keys_knc, _ = queue.sample(20)
    assert torch.equal(keys_knc[0], keys_knc[1])
    assert len(set(keys_knc[0].flatten().tolist())) == 20
    assert set(keys_knc[2].flatten().tolist()) <= set(range(7))
    assert not torch.equal(queue.sample(20)[0], keys_knc)


@pytest.mark.parametrize(
    "config",
    [
        {"w_pixel": 0.0, "w_region": 0.0},
        {"w_pixel": 0.0, "queue": 2000},
        {"w_pixel": 0.0, "pixels_per_class": 3},
        {"w_region": 0.0, "region_queue": 3},
    ],
)
def test_settings_without_effect_are_errors(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="leave"):
        CIRKDMemory.Config(**config)


TWO_RANKS = """
import sys
import torch, torch.distributed as dist
from kdsearch.distill.ops.class_queue import ClassQueue
torch.set_num_threads(1)
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{sys.argv[2]}", rank=rank, world_size=2)
queue = ClassQueue(2, 3, 2, all_ranks=True)
queue.store(torch.eye(2)[rank].expand(2, 1, 2), torch.tensor([[True], [rank == 1]]))
print(queue.entries_kqc.int().flatten().tolist(), queue.fill_k.tolist(), queue.next_k.tolist())
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_queues_of_two_ranks_hold_the_features_of_both() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_RANKS, str(rank), port],
            stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]  # fmt: skip
    zero, one = (rank.communicate(timeout=60)[0].decode() for rank in ranks)
    assert zero == one == "[1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0] [2, 1] [2, 1]\n"
