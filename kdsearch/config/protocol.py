"""Settings of an evaluation: the rules by which a network is measured on a split, and the published ones by name."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from kdsearch.config.data import Size
from kdsearch.config.strict import Listed, Strict
from kdsearch.errors import UserError, did_you_mean


class KeptRatio(Strict):
    """Resize with the aspect ratio kept, so that the short side is at most `short` and the long one at most `long`."""

    short: PositiveInt
    long: PositiveInt


class FixedSize(Strict):
    """Resize to one height and width."""

    fixed: Size


class Slide(Strict):
    """Windows of `crop` (height, width) every `stride` pixels; where they overlap, their scores are averaged."""

    crop: Size
    stride: Size

    @field_validator("stride")
    @classmethod
    def _leave_no_gap(cls, value: tuple[int, int], info: object) -> tuple[int, int]:
        crop = getattr(info, "data", {}).get("crop")
        if crop is not None and (value[0] > crop[0] or value[1] > crop[1]):
            raise ValueError(f"a stride of {list(value)} leaves pixels between windows of {list(crop)}; lower it")
        return value


class EvalProtocol(Strict):
    """The rules of one measurement. Labels are compared at their native size unless `labels` is `resized`.

    The digest of a protocol is part of every result: numbers of different digests do not compare.
    """

    resize: Literal["trained", "native"] | KeptRatio | FixedSize = Field(
        "trained", description="size of the network's input: that of its training, the image's own, or {short, long}, "
        "{fixed: [H, W]}",
    )  # fmt: skip
    labels: Literal["native", "resized"] = Field("native", description="size at which pixels are counted")
    slide: Slide | None = Field(None, description="windows instead of the whole image")
    scales: Listed[tuple[PositiveFloat, ...]] = Field((1.0,), min_length=1, description="factors of the input's size")
    flip: bool = Field(False, description="average with the mirrored image")
    average: Literal["logits", "probabilities"] = Field("logits", description="what scales and flips average")
    align_corners: bool = Field(True, description="convention of up-sampled logits")
    absent: Literal["skip", "zero"] = Field(
        "skip", description="a class that is neither in truth nor in predictions: left out of the mean, or IoU 0"
    )

    def digest(self) -> str:
        """Eight hexadecimal digits that stand for these rules."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]


_NATIVE = EvalProtocol(resize="native", absent="zero")
_MMSEG = EvalProtocol(
    resize=KeptRatio(short=512, long=2048), average="probabilities", align_corners=False, absent="skip"
)

PROTOCOLS: dict[str, EvalProtocol] = {
    "kdsearch": EvalProtocol(),
    "native": EvalProtocol(resize="native"),
    "cirkd": _NATIVE,
    "afdcd": _NATIVE,
    "skd": _NATIVE,
    "etc": _NATIVE,
    "mmseg": _MMSEG,
    "clnet": EvalProtocol(resize="native"),
    "rtfnet": _NATIVE,
}
"""Single scale without flip, as the tables of the papers have it."""

_ITS_OWN = {
    ("mmseg", "cityscapes"): _MMSEG.model_copy(update={"resize": "native"}),
    ("clnet", "pst900"): EvalProtocol(resize=FixedSize(fixed=(640, 1280)), labels="resized"),
}
"""Rules that a protocol has for one data set alone."""


def protocol_named(name: str, dataset: str) -> EvalProtocol:
    """The published rules `name` for the data set `dataset`; `UserError` for an unknown name."""
    if name not in PROTOCOLS:
        raise UserError(f"unknown protocol '{name}'.{did_you_mean(name, list(PROTOCOLS))}")
    return _ITS_OWN.get((name, dataset), PROTOCOLS[name])
