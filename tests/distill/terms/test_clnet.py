"""Each term against the loops of `reference.py`: values and gradients, to 1e-10."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kdsearch.distill.ops import contrast
from kdsearch.distill.ops.labels import class_sums, labels_at, prototypes
from kdsearch.models.seg_output import SegOutput

from . import reference
from .scene import CLASSES, Scene


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd(scene: Scene, temperature: float) -> None:
    term = scene.build("kd", temperature=temperature)
    scene.check(term, lambda s, t: reference.kl(s.logits, t.logits, scene.target, temperature))


def test_kd_over_all_pixels(scene: Scene) -> None:
    everything = torch.zeros_like(scene.target)
    term = scene.build("kd", mask_ignored=False)
    scene.check(term, lambda s, t: reference.kl(s.logits, t.logits, everything, 1))


@pytest.mark.parametrize("form", ["kl", "soft_ce"])
def test_dsrd_on_heads(scene: Scene, form: str) -> None:
    heads = ("bound1", "bin1")
    term = scene.build("dsrd", heads, form=form, w_det=0.7, w_sem=1.3, temperature=2)

    def expected(s: SegOutput, t: SegOutput) -> Tensor:
        detail = sum(reference.squared_probabilities(s.taps[head], t.taps[head], scene.target) for head in heads)
        return 0.7 * detail + 1.3 * reference.kl(s.logits, t.logits, scene.target, 2, entropy=form == "soft_ce")

    scene.check(term, expected)


@pytest.mark.parametrize("foreground", [None, (2, 4)])
def test_dsrd_derived(scene: Scene, foreground: tuple[int, ...] | None) -> None:
    term = scene.build("dsrd", (), w_sem=0, detail_source="derived", foreground=foreground)
    classes = foreground or (1, 2, 3, 4)
    scene.check(term, lambda s, t: reference.derived_detail(s.logits, t.logits, scene.target, classes))


def check_clfd(scene: Scene, name: str, config: dict[str, Any], tau: float, **kwargs: Any) -> None:
    function = getattr(reference, name)
    term = scene.build("clfd", **config)
    scene.check(term, lambda s, t: function(s.taps["con1"], t.taps["con1"], scene.target, tau, **kwargs))


@pytest.mark.parametrize("symmetric", [False, True])
def test_clfd_proto(scene: Scene, symmetric: bool) -> None:
    check_clfd(scene, "proto", {"symmetric": symmetric}, 0.1, symmetric=symmetric)


def test_clfd_spatial(scene: Scene) -> None:
    check_clfd(scene, "spatial", {"mode": "spatial"}, 0.1)


def test_clfd_proto_spatial_is_the_sum(scene: Scene) -> None:
    def expected(s: SegOutput, t: SegOutput) -> Tensor:
        maps = (s.taps["con1"], t.taps["con1"], scene.target, 0.3)
        return reference.proto(*maps) + reference.spatial(*maps)

    scene.check(scene.build("clfd", mode="proto_spatial", tau=0.3), expected)


def test_clfd_relation(scene: Scene) -> None:
    check_clfd(scene, "relation", {"mode": "relation"}, 0.2)


def test_clfd_pixel_proto(scene: Scene) -> None:
    check_clfd(scene, "pixel_proto", {"mode": "pixel_proto"}, 0.1)


@pytest.mark.parametrize("chunk", [1, 5, 1024])
def test_clfd_pixel_pixel(scene: Scene, chunk: int) -> None:
    config = {"mode": "pixel_pixel", "anchors_per_class": None, "chunk": chunk}
    check_clfd(scene, "pixel_pixel", config, 0.1)


def test_clfd_pixel_pixel_sampling_everything_is_exact(scene: Scene) -> None:
    check_clfd(scene, "pixel_pixel", {"mode": "pixel_pixel", "anchors_per_class": 100}, 0.1)


@pytest.mark.parametrize("chunk", [1, 5, 1024])
def test_clfd_memory(scene: Scene, chunk: int) -> None:
    student, target = scene.student.taps["con1"], scene.target
    label, valid = labels_at(target, (3, 4))
    generator = torch.Generator().manual_seed(1)
    queue_kqc = torch.randn(CLASSES, 4, 6, generator=generator, dtype=torch.float64)
    queue_kqc = queue_kqc / queue_kqc.norm(dim=2, keepdim=True)
    fill = [4, 2, 0, 0, 1]  # class 2 occurs in the batch and not in the queue
    filled_kq = torch.arange(4) < torch.tensor(fill)[:, None]
    rows = student.permute(0, 2, 3, 1).reshape(-1, 6)
    value = contrast.pixel_queue(rows, queue_kqc, filled_kq, label.flatten(), valid.flatten(), 0.07, chunk)
    wanted = reference.pixel_queue(student, {c: list(queue_kqc[c, :n]) for c, n in enumerate(fill)}, target, 0.07)
    torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-10)
    for grad, wanted_grad in zip(
        torch.autograd.grad(value, student), torch.autograd.grad(wanted, student), strict=True
    ):
        torch.testing.assert_close(grad, wanted_grad, rtol=1e-10, atol=1e-10)


def test_clfd_memory_is_the_embedded_student_against_its_queue(scene: Scene) -> None:
    term = scene.build("clfd", mode="memory", queue=6, pixels=3)
    term(scene.student, scene.teacher, scene.target)
    term.eval()
    queue, embed = term.queues["con1"], term.adapters["con1"]
    entries = {c: list(queue.entries_kqc[c][queue.filled_kq[c]]) for c in range(CLASSES)}
    assert [c for c in entries if entries[c]] == sorted(reference.by_class(scene.target))
    scene.check(term, lambda s, t: reference.pixel_queue(embed(s.taps["con1"]), entries, scene.target, 0.07))


def test_layers_add_up() -> None:
    scene = Scene(2)
    scene.channels["con2"] = 6
    for output in (scene.student, scene.teacher):
        output.taps["con2"] = output.taps["con1"].detach().flip(1).requires_grad_()

    def expected(s: SegOutput, t: SegOutput) -> Tensor:
        return sum(reference.proto(s.taps[tap], t.taps[tap], scene.target, 0.1) for tap in ("con1", "con2"))

    scene.check(scene.build("clfd", ("con1", "con2")), expected)


def test_prototypes_are_means_over_the_whole_batch(scene: Scene) -> None:
    feat = scene.teacher.taps["con1"]
    label, valid = labels_at(scene.target, (3, 4))
    proto_kc, present_k = prototypes(feat, label, valid, CLASSES)
    sums_bkc, count_bk = class_sums(feat, label, valid, CLASSES)
    present = sorted(reference.by_class(scene.target))
    assert present_k.nonzero()[:, 0].tolist() == present
    for c in present:
        rows = feat.permute(0, 2, 3, 1)[scene.target == c]
        torch.testing.assert_close(proto_kc[c], rows.mean(0), rtol=1e-12, atol=1e-12)
        for b in range(len(feat)):
            own = feat[b].permute(1, 2, 0)[scene.target[b] == c]
            assert count_bk[b, c] == len(own)
            torch.testing.assert_close(sums_bkc[b, c], own.sum(0), rtol=1e-12, atol=1e-12)
