"""Whole evaluations of an oracle, a network that knows the labels, against a second evaluator in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from kdsearch.config.protocol import EvalProtocol, FixedSize, KeptRatio, Slide
from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.data.reader import Sample
from kdsearch.errors import UserError
from kdsearch.train.evaluation.evaluate import measure
from kdsearch.train.evaluation.prediction import MeasuredNetwork, Predictor
from kdsearch.train.evaluation.result import Evaluation

INFO = DatasetInfo("two", ("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), 3, (0.5,) * 3, (0.25,) * 3)
STRIDE = 8


class TwoImages:
    """A set of images of different sizes whose pixels show their class: 40 times the id, plus noise."""

    info = INFO

    def __init__(self, labelled: bool = True) -> None:
        rng = np.random.default_rng(0)
        self.samples: dict[str, Sample] = {}
        for key, (height, width) in {"first": (45, 61), "second": (37, 80)}.items():
            label_hw = rng.integers(0, 3, (height // 7 + 1, width // 9 + 1), np.uint8).repeat(7, 0).repeat(9, 1)
            label_hw = np.ascontiguousarray(label_hw[:height, :width])
            image_hwc = np.dstack([label_hw * 40 + 20] * 3).astype(np.uint8)
            label_hw[3:6] = IGNORE_INDEX
            self.samples[key] = Sample(image_hwc, label_hw if labelled else np.full_like(label_hw, IGNORE_INDEX))

    def keys(self, split: str) -> list[str]:
        return list(self.samples)

    def read(self, split: str, key: str) -> Sample:
        return self.samples[key]

    def fingerprint(self) -> str:
        return "0"


def oracle(image_bchw: Tensor) -> Tensor:
    """Logits at stride 8: minus the distance of the grey value to that of each class."""
    grey_b1hw = (image_bchw[:, :1] * 0.25 + 0.5) * 255
    low_b1hw = F.avg_pool2d(grey_b1hw, STRIDE, ceil_mode=True, count_include_pad=False)
    return torch.cat([-((low_b1hw - (40 * k + 20)) ** 2) / 100 for k in range(3)], 1)


def measured(protocol: EvalProtocol, reader: Any = None, divisor: int = 1) -> Evaluation:
    network = MeasuredNetwork(oracle, INFO, (32, 64), divisor, torch.device("cpu"))
    return measure(Predictor(network, protocol), reader or TwoImages(), "val")


def second_evaluator(protocol_align: bool) -> NDArray[np.int64]:
    """The matrix of the native rule: every pixel's logits are interpolated by hand, in numpy alone."""
    counts = np.zeros((3, 3), np.int64)
    for sample in TwoImages().samples.values():
        height, width = sample.label_hw.shape
        image = (torch.tensor(sample.image_hwc).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.25
        low = oracle(image)[0].double().numpy()
        rows, columns = low.shape[1:]
        for y in range(height):
            for x in range(width):
                if sample.label_hw[y, x] == IGNORE_INDEX:
                    continue
                if protocol_align:
                    v, u = y * (rows - 1) / (height - 1), x * (columns - 1) / (width - 1)
                else:
                    v, u = max((y + 0.5) * rows / height - 0.5, 0), max((x + 0.5) * columns / width - 0.5, 0)
                top, left = int(v), int(u)
                bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
                dv, du = v - top, u - left
                logits = (
                    low[:, top, left] * (1 - dv) * (1 - du) + low[:, top, right] * (1 - dv) * du
                    + low[:, bottom, left] * dv * (1 - du) + low[:, bottom, right] * dv * du
                )  # fmt: skip
                counts[sample.label_hw[y, x], int(logits.argmax())] += 1
    return counts


@pytest.mark.parametrize("align", [True, False])
def test_the_native_rule_gives_the_matrix_of_a_second_evaluator(align: bool) -> None:
    result = measured(EvalProtocol(resize="native", align_corners=align))
    counts = second_evaluator(align)
    assert result.counts_kk.sum() == counts.sum()
    # fp32 against fp64: a pixel whose two best logits are equal may fall either way.
    assert np.abs(result.counts_kk - counts).sum() <= 4


def test_another_size_of_the_input_is_another_result() -> None:
    native = measured(EvalProtocol(resize="native"))
    for rule in (EvalProtocol(), EvalProtocol(resize=KeptRatio(short=64, long=128)), EvalProtocol(scales=(0.5, 1.0))):
        other = measured(rule)
        assert other.counts_kk.sum() == native.counts_kk.sum(), "labels keep their own size"
        assert (other.counts_kk != native.counts_kk).any()
        assert other.protocol.digest() != native.protocol.digest()
        assert other.fingerprint == native.fingerprint
    resized = measured(EvalProtocol(resize=FixedSize(fixed=(32, 64)), labels="resized"))
    assert resized.counts_kk.sum() < native.counts_kk.sum()


def test_every_rule_is_right_where_the_network_sees_enough() -> None:
    """Four times the size, a class is 28 pixels high and more: stride 8 tells all of them apart."""
    large = {"resize": FixedSize(fixed=(180, 320))}
    rules: list[dict[str, Any]] = [
        {}, {"flip": True}, {"scales": (1.0, 1.5)}, {"average": "probabilities", "flip": True},
        {"slide": Slide(crop=(96, 96), stride=(64, 64))}, {"align_corners": False},
    ]  # fmt: skip
    for rule in rules:
        assert measured(EvalProtocol(**(large | rule))).miou > 0.8, rule


def test_padding_to_the_networks_stride_is_cut_off() -> None:
    padded = measured(EvalProtocol(resize="native"), divisor=32)
    whole = measured(EvalProtocol(resize="native"))
    assert padded.counts_kk.sum() == whole.counts_kk.sum()
    assert padded.miou == pytest.approx(whole.miou, abs=0.1)


def test_a_window_of_the_whole_image_is_the_whole_image() -> None:
    slide = Slide(crop=(100, 100), stride=(50, 50))
    sliding = measured(EvalProtocol(resize="native", slide=slide))
    assert (sliding.counts_kk == measured(EvalProtocol(resize="native")).counts_kk).all()


def test_images_are_listed_with_their_own_result() -> None:
    images = measured(EvalProtocol(resize="native")).images
    assert [image.key for image in images] == ["first", "second"]
    assert all(0 < image.miou < 1 for image in images)


def test_the_split_is_known_by_its_pixels() -> None:
    changed = TwoImages()
    before = measured(EvalProtocol(), changed).fingerprint
    label_hw = changed.samples["second"].label_hw
    label_hw[20, 20] = (label_hw[20, 20] + 1) % 3
    assert measured(EvalProtocol(), changed).fingerprint != before


def test_a_split_without_labels_is_refused() -> None:
    with pytest.raises(UserError, match="no labelled pixel"):
        measured(EvalProtocol(), TwoImages(labelled=False))
