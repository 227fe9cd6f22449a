"""Sizes of inputs and windows of an evaluation. All sizes are (height, width) in pixels."""

from __future__ import annotations

from kdsearch.config.protocol import EvalProtocol, FixedSize, KeptRatio, Slide

Size = tuple[int, int]
Window = tuple[int, int, int, int]
"""Top, left, bottom, right."""


def input_size(protocol: EvalProtocol, native: Size, trained: Size) -> Size:
    """The size to which an image of `native` size is resized before the factors of `scales`."""
    rule = protocol.resize
    if isinstance(rule, KeptRatio):
        return kept_ratio_size(native, rule.short, rule.long)
    if isinstance(rule, FixedSize):
        return rule.fixed
    return native if rule == "native" else trained


def kept_ratio_size(native: Size, short: int, long: int) -> Size:
    """The largest size of the same aspect ratio with sides of at most `short` and `long`; halves round up."""
    factor = min(long / max(native), short / min(native))
    return int(factor * native[0] + 0.5), int(factor * native[1] + 0.5)


def scaled_size(protocol: EvalProtocol, native: Size, size: Size, scale: float) -> Size:
    """The size of the input at a factor of `scales`: rounded down, or by the rule of the aspect ratio kept."""
    if scale == 1:
        return size
    if isinstance(protocol.resize, KeptRatio):
        return kept_ratio_size(native, int(protocol.resize.short * scale), int(protocol.resize.long * scale))
    return int(size[0] * scale), int(size[1] * scale)


def windows(size: Size, slide: Slide | None) -> list[Window]:
    """The windows that cover an image: each has the size of the crop, or of the image where that is smaller."""
    if slide is None:
        return [(0, 0, *size)]
    spans = [_spans(*each) for each in zip(size, slide.crop, slide.stride, strict=True)]
    return [(top, left, bottom, right) for top, bottom in spans[0] for left, right in spans[1]]


def _spans(length: int, crop: int, stride: int) -> list[tuple[int, int]]:
    count = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(index * stride + crop, length) for index in range(count)]
    return [(max(end - crop, 0), end) for end in ends]
