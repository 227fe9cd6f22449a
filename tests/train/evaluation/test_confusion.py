from __future__ import annotations

import math

import pytest
import torch

from kdsearch.train.evaluation.confusion import ConfusionMatrix, follow_flow


def test_iou_equals_counting_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randint(0, 5, (3, 6, 7), generator=generator)
    target = torch.randint(0, 5, (3, 6, 7), generator=generator)
    target[0, :2] = 255
    matrix = ConfusionMatrix(5, torch.device("cpu"))
    for i in range(3):
        matrix.update(prediction[i : i + 1], target[i : i + 1])
    pixels = [(int(p), int(t)) for p, t in zip(prediction.flatten(), target.flatten(), strict=True) if t != 255]
    for c, iou in enumerate(matrix.iou_k().tolist()):
        hits = sum(p == c and t == c for p, t in pixels)
        union = sum(p == c or t == c for p, t in pixels)
        assert iou == pytest.approx(hits / union, abs=1e-12)
    assert matrix.pixel_accuracy() == pytest.approx(sum(p == t for p, t in pixels) / len(pixels))


def test_classes_that_never_occur_are_left_out_of_the_mean() -> None:
    matrix = ConfusionMatrix(4, torch.device("cpu"))
    matrix.update(torch.tensor([[[0, 0, 1]]]), torch.tensor([[[0, 1, 1]]]))
    assert matrix.miou() == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert math.isnan(matrix.iou_k()[3])
    # A class that is predicted but absent counts as 0.
    matrix.update(torch.tensor([[[2]]]), torch.tensor([[[0]]]))
    assert matrix.miou() == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)


def test_following_the_flow_equals_looking_up_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    later = torch.randint(0, 5, (2, 4, 6), generator=generator)
    flow = torch.randn(2, 2, 4, 6, generator=generator) * 2
    moved = follow_flow(later, flow)
    for b in range(2):
        for i in range(4):
            for j in range(6):
                x, y = round(j + float(flow[b, 0, i, j])), round(i + float(flow[b, 1, i, j]))
                inside = 0 <= x < 6 and 0 <= y < 4
                assert moved[b, i, j] == (later[b, y, x] if inside else 255)
    assert torch.equal(follow_flow(later, torch.zeros_like(flow)), later)
