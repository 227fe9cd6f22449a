"""Sizes by the published rules, with vectors that were computed by hand."""

from __future__ import annotations

import pytest

from kdsearch.config.protocol import EvalProtocol, Slide
from kdsearch.train.evaluation.sizes import kept_ratio_size, scaled_size, windows


@pytest.mark.parametrize(
    ("native", "resized"),
    [
        ((375, 500), (512, 683)),
        ((500, 334), (766, 512)),
        ((480, 640), (512, 683)),
        ((300, 1500), (410, 2048)),
        ((1024, 2048), (512, 1024)),
    ],
)
def test_the_aspect_ratio_is_kept(native: tuple[int, int], resized: tuple[int, int]) -> None:
    assert kept_ratio_size(native, 512, 2048) == resized


def test_scales_round_down() -> None:
    native = EvalProtocol(resize="native")
    scaled = {scale: scaled_size(native, (375, 500), (375, 500), scale)[0] for scale in (0.5, 0.75, 1.25, 1.5, 1.75)}
    assert scaled == {0.5: 187, 0.75: 281, 1.25: 468, 1.5: 562, 1.75: 656}


@pytest.mark.parametrize(
    ("length", "crop", "stride", "spans"),
    [
        (1024, 769, 513, [(0, 769), (255, 1024)]),
        (2048, 769, 513, [(0, 769), (513, 1282), (1026, 1795), (1279, 2048)]),
        (375, 512, 341, [(0, 375)]),
        (2048, 1024, 768, [(0, 1024), (768, 1792), (1024, 2048)]),
    ],
)
def test_windows_cover_an_axis(length: int, crop: int, stride: int, spans: list[tuple[int, int]]) -> None:
    along = windows((1, length), Slide(crop=(1, crop), stride=(1, stride)))
    assert [(left, right) for _, left, _, right in along] == spans
    down = windows((length, 1), Slide(crop=(crop, 1), stride=(stride, 1)))
    assert [(top, bottom) for top, _, bottom, _ in down] == spans


def test_a_stride_that_leaves_pixels_out_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves pixels between windows"):
        Slide(crop=(4, 4), stride=(4, 5))
