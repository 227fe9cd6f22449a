"""Means, conventions and boundaries against numbers computed by hand and against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kdsearch.config.protocol import EvalProtocol
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.train.evaluation.boundary import BoundaryCounts
from kdsearch.train.evaluation.confusion import ConfusionMatrix
from kdsearch.train.evaluation.result import Evaluation

N = IGNORE_INDEX
TRUTHS = [[[0, 0, 1, N], [0, 1, 1, N]], [[2, 2, 2], [2, 2, 0], [1, 1, 0]]]
PREDICTIONS = [[[0, 1, 1, 2], [0, 1, 0, 2]], [[2, 2, 3], [2, 2, 0], [1, 2, 0]]]


def evaluation(counts_kk: NDArray[np.int64], **settings: str) -> Evaluation:
    count = len(counts_kk)
    names = tuple(f"class {i}" for i in range(count))
    protocol = EvalProtocol.model_validate(settings)
    matrix = ConfusionMatrix(count, torch.device("cpu"))
    matrix.counts_kk += torch.from_numpy(counts_kk)
    return Evaluation("set", "val", names, protocol, "0", matrix, np.full(count, np.nan), ())


def test_both_means_of_a_matrix_with_an_absent_and_a_predicted_only_class() -> None:
    matrix = ConfusionMatrix(5, torch.device("cpu"))
    for made, true in zip(PREDICTIONS, TRUTHS, strict=True):
        matrix.update(torch.tensor(made), torch.tensor(true))
    counts = matrix.counts_kk.numpy()
    result = evaluation(counts)
    assert result.matrix.iou_k().tolist() == pytest.approx([4 / 6, 3 / 6, 4 / 6, 0, math.nan], nan_ok=True)
    assert result.matrix.miou("skip") == pytest.approx(0.458333, abs=1e-6)
    assert result.matrix.miou("zero") == pytest.approx(0.366667, abs=1e-6)
    assert result.miou == result.matrix.miou("skip")
    assert evaluation(counts, absent="zero").miou == result.matrix.miou("zero")
    assert result.absent == ("class 3", "class 4")
    assert "iou/class 4" not in result.metrics()


def test_coco_of_171_classes_in_the_convention_of_182() -> None:
    counts_kk = np.diag(np.full(182, 1000)).astype(np.int64)
    counts_kk[171:] = 0
    result = evaluation(counts_kk)
    assert result.matrix.miou("zero") == pytest.approx(result.matrix.miou("skip") * 171 / 182)


def boundary_by_loop(label_hw: NDArray[np.uint8], of: int, width: int) -> NDArray[np.bool_]:
    """Pixels of a mask within `width` (chessboard) of a pixel outside it; the image's edge is outside."""
    height, length = label_hw.shape
    found = np.zeros(label_hw.shape, bool)
    for y, x in zip(*np.nonzero(label_hw == of), strict=True):
        for ny in range(y - width, y + width + 1):
            for nx in range(x - width, x + width + 1):
                outside = not (0 <= ny < height and 0 <= nx < length)
                found[y, x] |= outside or label_hw[ny, nx] != of
    return found


def test_boundary_iou_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    height, length, count = 60, 80, 3  # the boundary is round(0.02 * 100) = 2 pixels wide
    counts = BoundaryCounts(count)
    both, either = np.zeros(count), np.zeros(count)
    for _ in range(2):
        label_hw, made_hw = (
            rng.integers(0, count, (height // 10, length // 10), np.uint8).repeat(10, 0).repeat(10, 1) for _ in "ab"
        )
        label_hw[20:27, 31:50] = IGNORE_INDEX
        counts.update(made_hw, label_hw, IGNORE_INDEX)
        made_hw = np.where(label_hw == IGNORE_INDEX, IGNORE_INDEX, made_hw)
        for of in range(count):
            true, made = boundary_by_loop(label_hw, of, 2), boundary_by_loop(made_hw, of, 2)
            both[of] += (true & made).sum()
            either[of] += (true | made).sum()
    assert counts.iou_k().tolist() == pytest.approx((both / either).tolist())
    assert 0 < counts.iou_k().min() < 1
